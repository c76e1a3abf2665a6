// Package flow is the engine that carries flows out: it performs one persisted
// step after another, and whoever takes over reads the cursor and goes on.
// There is no other recovery code.
//
// How a step runs (runner.go): StepStart is committed, the step's executor
// acts, StepDone is committed together with what the step wrote and with the
// start of the next step. "Started" means "started, perhaps not finished": a
// new holder treats the step by its resume policy (steps.go).
//
// Invariants:
//   - Everything is written under the lock's token; the replicated state
//     refuses what comes from a holder that has lost it.
//   - Nothing runs outside an open gate (package lease). When the gate closes,
//     every task ends without writing anything.
//   - A change at a BMC happens between IntentOpen and IntentClose, only while
//     the node has no quarantine, and is proven by reading (mutate.go).
//   - No step uses a BMC of which it is not known, with the node's present
//     driver_info, that it is that of the node's machine (verify.go).
//   - A flow ends in one command: status, state, boot record and lock together.
//
// Concurrency: one goroutine per node with unfinished work; Engine.Run owns
// the table of tasks.
package flow
