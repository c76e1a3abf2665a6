package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// qmp is a conversation with a running QEMU. One goroutine reads; it ends when
// QEMU closes the socket or close is called.
type qmp struct {
	conn   net.Conn
	events func(name string, data json.RawMessage) // called by the reader; must not block
	done   chan struct{}                           // closed when the reader has ended

	call sync.Mutex // held for one question and its answer
	mu   sync.Mutex
	want chan qmpReply // guarded by mu; nil when nobody asked
}

type qmpReply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

func dialQMP(socket string, events func(string, json.RawMessage)) (*qmp, error) {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return nil, err
	}
	q := &qmp{conn: conn, events: events, done: make(chan struct{})}
	r := bufio.NewReader(conn)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.ReadBytes('\n'); err != nil { // the greeting
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Time{})
	go q.read(r)
	if err := q.do("qmp_capabilities", nil, nil); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read(r *bufio.Reader) {
	defer close(q.done)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var reply qmpReply
		if json.Unmarshal(line, &reply) != nil {
			continue
		}
		if reply.Event != "" {
			q.events(reply.Event, reply.Data)
			continue
		}
		q.mu.Lock()
		if q.want != nil {
			q.want <- reply // has room for one, and is asked for one
			q.want = nil
		}
		q.mu.Unlock()
	}
}

// do asks QEMU for something and decodes the answer into out, if that is given.
func (q *qmp) do(command string, args, out any) error {
	q.call.Lock()
	defer q.call.Unlock()
	msg := map[string]any{"execute": command}
	if args != nil {
		msg["arguments"] = args
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	want := make(chan qmpReply, 1)
	q.mu.Lock()
	q.want = want
	q.mu.Unlock()
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case reply := <-want:
		if reply.Error != nil {
			return fmt.Errorf("qmp %s: %s", command, reply.Error.Desc)
		}
		if out != nil {
			return json.Unmarshal(reply.Return, out)
		}
		return nil
	case <-q.done:
		return fmt.Errorf("qmp %s: %w", command, errGone)
	case <-time.After(30 * time.Second):
		return fmt.Errorf("qmp %s: %w", command, errors.New("no answer"))
	}
}

func (q *qmp) close() {
	_ = q.conn.Close()
	<-q.done
}
