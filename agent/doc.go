// Package agent is our program inside the machine that is provisioned: it
// enrols with its boot nonce, holds one stream to any peer, and carries out
// the commands of the node's holder. The ramdisk's /init runs it on a real
// machine, the simulator runs the same code on sparse files.
//
// It is not for deciding anything: which disk, which image, what next is the
// holder's business. The agent checks that what it is told fits the machine,
// and refuses otherwise.
//
// Invariants:
//
//   - Work does not depend on the stream. Commands run on the context of Run;
//     conductors may die and change while a command goes on.
//   - A command is known by its cmd_id and starts at most once. Asking again
//     gives the status or the result.
//   - The highest token seen is kept; whatever carries a lower one is refused.
//     It is on file, with all results, before anything is done under it.
//   - No byte goes to a disk whose serial and WWN do not match what was asked.
//   - The head of a disk is written last, after all else was verified, so that
//     a half-written disk never boots.
//   - Commands that change the machine run one at a time.
//
// Concurrency: Run owns every goroutine and waits for all of them. The book
// (book.go) is the only state that goroutines share; everything else belongs
// to one of them.
//
// Start reading at Run, then session.go (the conversation), book.go (what is
// known of each command) and commands.go (what can be done).
package agent
