// Command outside is a program of another module that uses the library.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

func main() {
	c, err := client.New(client.Config{Socket: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	for n, err := range c.Nodes(ctx, &api.ListNodesRequest{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n.GetName(), n.GetState())
	}
	rep, err := c.Provision(ctx, &api.ProvisionRequest{Node: "n1", Verb: api.Event_EV_MANAGE})
	if errors.Is(err, client.WrongState) {
		fmt.Println("not now:", err)
		return
	}
	if err != nil {
		log.Fatal(client.KindOf(err), err)
	}
	_, err = c.Wait(ctx, "n1", client.Until{State: api.State_MANAGEABLE, After: rep.GetIndex()}, func(ev *api.NodeEvent) {
		fmt.Println(ev.GetProgress().GetPercent())
	})
	var failed *client.WorkFailed
	if errors.As(err, &failed) {
		fmt.Println(failed.Reason)
	}
}
