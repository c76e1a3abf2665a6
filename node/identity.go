package node

// IdentityMismatch is what the errors begin with, behind the name of the node
// and the step, that say that the machine which booted is not the one behind the
// node's BMC. Nothing that wipes may be recommended after one.
const IdentityMismatch = "identity mismatch"
