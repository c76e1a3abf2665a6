package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const (
	helperWord = "ironring-e2e-bmc-helper" // first argument of a helper process
	helperEnd  = "\x00"                    // ends a good answer
)

// Helper makes this process a helper of ipmi_sim when its arguments say so,
// and does not return then. ipmi_sim runs a program for each chassis command;
// that program is the test binary again, which hands the command to the BMC
// in the test. TestMain calls it before anything else.
func Helper() {
	if len(os.Args) < 4 || os.Args[1] != helperWord {
		return
	}
	answer, err := helperCall(os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(answer)
	os.Exit(0)
}

func helperCall(socket string, args []string) (string, error) {
	conn, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if err := json.NewEncoder(conn).Encode(args); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	answer, ok := strings.CutSuffix(string(b), helperEnd)
	if !ok {
		return "", fmt.Errorf("%v failed", args)
	}
	return answer, nil
}
