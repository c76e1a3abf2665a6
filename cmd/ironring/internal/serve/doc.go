// Package serve is one running peer: it opens the listeners, the cluster, the
// drivers, the conductor and the boot services, runs them, and stops them in
// order. It is wiring; what the parts do is told in their own packages.
//
// Order of opening (Open): what can fail for a reason on this host goes first,
// so that nothing is founded and no single-use token is spent by a peer that
// cannot start then: drivers, the data directory's lock, API and agent ports,
// unix socket, a look at the ports of the boot services; then the cluster is
// founded or joined; then conductor, boot services.
//
// Order of stopping (Peer.Run), each waited for before the next:
//
//  0. metrics, if they are served: nothing depends on them;
//  1. boot services: they ask the cluster for addresses and write the journal;
//  2. API listeners: requests under way are answered while the cluster works;
//  3. conductor: its engine ends at a safe point and the lease is released,
//     which needs the cluster. With the agents' streams gone first, a running
//     step would take a live agent for a dead one;
//  4. agent listener;
//  5. cluster: leadership is handed over, Raft stops.
//
// Start with Run.
package serve
