// franz-go and sarama under the suite's contract; see ../script.py.
//
//	goclients franz|sarama produce|consume BOOTSTRAP PLAN.json
//	goclients franz|sarama group BOOTSTRAP TOPIC GROUP
//	goclients franz|sarama transact BOOTSTRAP TOPIC   {"committed": [values that a read_committed reader sees]}
//	goclients franz|sarama admin BOOTSTRAP TOPIC      {"partitions", "retention", "listed", "gone"}
//	goclients console pages BOOTSTRAP REGISTRY        what the pages of Redpanda Console show
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

const deadline = 60 * time.Second

type record struct {
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
	Timestamp int64        `json:"timestamp"`
}

type send struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Codec     string   `json:"codec"`
	Records   []record `json:"records"`
}

type topic struct {
	Topic      string `json:"topic"`
	Partitions int32  `json:"partitions"`
	Count      int    `json:"count"`
}

type sent struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Offsets   []int64 `json:"offsets"`
}

// partition, offset, timestamp, key, value, headers
type read [6]any

type client interface {
	produce(bootstrap string, sends []send) []sent
	consume(bootstrap string, topics []topic) map[string][]read
	group(bootstrap, topic, group string, leave <-chan struct{})
	transact(bootstrap, topic string) []string
	admin(bootstrap, topic string) map[string]any
}

func main() {
	clients := map[string]client{"franz": franz{}, "sarama": saramaClient{}}
	name, mode, bootstrap, rest := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	if name == "console" {
		say(console(bootstrap, rest[0]))
		return
	}
	chosen := clients[name]
	switch mode {
	case "produce":
		var plan struct{ Sends []send }
		load(rest[0], &plan)
		say(map[string]any{"client": name, "sent": chosen.produce(bootstrap, plan.Sends)})
	case "consume":
		var plan struct{ Topics []topic }
		load(rest[0], &plan)
		say(map[string]any{"client": name, "records": chosen.consume(bootstrap, plan.Topics)})
	case "group":
		chosen.group(bootstrap, rest[0], rest[1], askedToLeave())
		say(map[string]any{"left": true})
	case "transact":
		say(map[string]any{"committed": chosen.transact(bootstrap, rest[0])})
	case "admin":
		say(chosen.admin(bootstrap, rest[0]))
	default:
		fail(fmt.Errorf("unknown mode %s", mode))
	}
}

func askedToLeave() <-chan struct{} {
	leave := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() && !strings.Contains(lines.Text(), "leave") {
		}
		close(leave)
	}()
	return leave
}

func load(path string, into any) {
	text, err := os.ReadFile(path)
	fail(err)
	fail(json.Unmarshal(text, into))
}

func say(event any) {
	text, err := json.Marshal(event)
	fail(err)
	fmt.Println(string(text))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func unhex(text *string) []byte {
	if text == nil {
		return nil
	}
	bytes, err := hex.DecodeString(*text)
	fail(err)
	return bytes
}

func tohex(bytes []byte) any {
	if bytes == nil {
		return nil
	}
	return hex.EncodeToString(bytes)
}
