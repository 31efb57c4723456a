package client_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/prism-data-layer/prism/client"
)

// exampleServer stands in for a server that runs already; a program passes its address to Dial.
func exampleServer() (addr string, stop func()) {
	s, err := start("127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return s.addr, s.stop
}

// Register identities, then find those that match a filter.
func Example() {
	addr, stop := exampleServer()
	defer stop()
	ctx := context.Background()

	c, err := client.Dial(addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	for id, battery := range map[string]float64{"robot-1": 0.9, "robot-2": 0.1, "robot-3": 0.05} {
		metadata := map[string]any{"room": "engineering", "battery": battery}
		if _, err := c.Register(ctx, client.Registration{ID: id, Metadata: metadata}); err != nil {
			panic(err)
		}
	}
	query := client.Query{Filter: map[string]any{"battery": map[string]any{"$lt": 0.2}}}
	for identity, err := range c.All(ctx, query) {
		if err != nil {
			panic(err)
		}
		battery, _ := identity.Lookup("battery")
		fmt.Println(identity.ID, battery)
	}
	// Output:
	// robot-2 0.1
	// robot-3 0.05
}

// Join is all that a program needs that is to be reached.
func ExampleClient_Join() {
	addr, stop := exampleServer()
	defer stop()
	c, err := client.Dial(addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()

	ctx, leave := context.WithCancel(context.Background())
	joined, left := make(chan struct{}), make(chan error)
	go func() {
		registration := client.Registration{ID: "robot-1", Metadata: map[string]any{"room": "engineering"}}
		left <- c.Join(ctx, registration, func(_ context.Context, m client.Message) error {
			fmt.Printf("%s received: %s\n", m.Identity, m.Payload)
			return nil // acknowledges it
		}, client.OnJoined(func() { close(joined) }))
	}()
	<-joined

	result, err := c.Multicast(context.Background(), client.MulticastRequest{
		Filter:  map[string]any{"room": "engineering"},
		Payload: []byte("please charge"),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(result.Delivered, "of", result.TargetCount, "acknowledged it")
	leave()
	fmt.Println("left:", errors.Is(<-left, context.Canceled))
	// Output:
	// robot-1 received: please charge
	// 1 of 1 acknowledged it
	// left: true
}

// What became of a target that nobody listens for.
func ExampleClient_Multicast() {
	addr, stop := exampleServer()
	defer stop()
	ctx := context.Background()
	c, err := client.Dial(addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	if _, err := c.Register(ctx, client.Registration{ID: "robot-1"}); err != nil {
		panic(err)
	}
	result, err := c.Multicast(ctx, client.MulticastRequest{Payload: []byte("hello"), Delivery: client.AtLeastOnce})
	if err != nil {
		panic(err)
	}
	for _, target := range result.Targets {
		fmt.Println(target.Identity, target.Status, errors.Is(target.Err, client.ErrNoSubscriber))
	}
	// Output: robot-1 FAILED true
}

// Text that a person typed is read with ParseFilter, which says where it is wrong.
func ExampleParseFilter() {
	_, err := client.ParseFilter(`{"name": {"$startwith": "robot"}}`)
	fmt.Println(err)
	// Output: filter/name/$startwith: unknown operator "$startwith": did you mean $startswith?
}

// A Stream is what Join stands on, for programs that decide themselves what to attach and when to acknowledge.
func ExampleClient_Subscribe() {
	addr, stop := exampleServer()
	defer stop()
	ctx := context.Background()
	c, err := client.Dial(addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	if _, err := c.Register(ctx, client.Registration{ID: "robot-1"}); err != nil {
		panic(err)
	}

	stream, err := c.Subscribe(ctx)
	if err != nil {
		panic(err)
	}
	defer stream.Close()
	if err := stream.Attach(ctx, true, "robot-1"); err != nil { // true keeps the lease alive
		panic(err)
	}
	if _, err := c.Multicast(ctx, client.MulticastRequest{Payload: []byte("hello"), Delivery: client.AtMostOnce}); err != nil {
		panic(err)
	}
	event, err := stream.Next(ctx)
	if err != nil {
		panic(err)
	}
	for _, m := range event.Messages {
		fmt.Printf("%s: %s\n", m.Identity, m.Payload)
		if err := stream.Ack(m.Name()); err != nil {
			panic(err)
		}
	}
	// Output: robot-1: hello
}
