// Package artifact keeps files by their content on the disks of the peers and
// gives them to machines: kernels and initramfs, images, media. The records
// (api.Artifact) are replicated through the log; the bytes are not.
//
// It is not for deciding what a machine boots (package pxe) or which peer
// shall have a copy: the leader does (cluster/duties), by writing the peer
// into the record.
//
// # Invariants
//
//   - A file under sha256/ has the digest that is its name: it was hashed
//     while it was written, synced, and renamed into its place only then.
//   - No record is committed before the file is on two disks, where the
//     cluster has two peers; a record's copies are on disk when they are
//     committed.
//   - What a machine gets is right or cut short: of a file that is still on
//     its way here the last byte is held back until the whole is verified.
//   - Nothing is written once the disk is used to the bound, so that Raft's log
//     never meets a full disk through artifacts.
//   - A file is deleted only when no record has named it and nobody has wanted
//     it for an hour, and a record that could come later than that is refused
//     (hold.go has the rule). One that is being sent or received stays.
//   - A damaged file is never served again: it is moved away, the record loses
//     the copy, and the file is fetched anew.
//
// # Crashes
//
// Each moment is safe. A file half written is under incoming/ (removed at the
// start) or partial/ (named by its digest, gone on with, and hashed from its
// first byte). A file without a record, because the peer died before the
// commit, is deleted later or adopted by the next put, and so is a part that
// nobody goes on with. A record that names a
// copy that is not there is corrected by the peer itself, at its start and
// once a minute.
//
// # Concurrency
//
// Store and Keeper are safe for concurrent use. All background work runs in
// Keeper.Run and has ended when that returns. One transfer runs for a digest at
// a time; who asks for it meanwhile joins.
//
// Start at keeper.go; store.go and incoming.go are the disk, fetch.go gets a
// file from other peers and from its origin, image.go is who does that for
// all, put.go takes a file from a client, relay.go passes one on that has no
// room here.
package artifact
