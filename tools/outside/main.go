// Command outside stands for somebody else's program: see build.
package main

import (
	"fmt"

	"github.com/ironring/ironring/api"
)

func main() {
	n := &api.Node{}
	fmt.Println(n.GetName())
}
