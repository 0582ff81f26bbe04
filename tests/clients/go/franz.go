package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type franz struct{}

var franzCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func franzClient(bootstrap string, options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap))...)
	fail(err)
	return client
}

func within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (franz) produce(bootstrap string, sends []send) []sent {
	var all []sent
	for _, send := range sends {
		client := franzClient(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerBatchCompression(franzCodecs[send.Codec]), kgo.ProducerLinger(50*time.Millisecond))
		var records []*kgo.Record
		for _, r := range send.Records {
			record := &kgo.Record{Topic: send.Topic, Partition: send.Partition, Key: unhex(r.Key), Value: unhex(r.Value),
				Timestamp: time.UnixMilli(r.Timestamp)}
			for _, header := range r.Headers {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: *header[0], Value: unhex(header[1])})
			}
			records = append(records, record)
		}
		one := sent{Topic: send.Topic, Partition: send.Partition}
		for _, result := range client.ProduceSync(within(), records...) {
			fail(result.Err)
			one.Offsets = append(one.Offsets, result.Record.Offset)
		}
		client.Close()
		all = append(all, one)
	}
	return all
}

func (franz) consume(bootstrap string, topics []topic) map[string][]read {
	records, wanted := map[string][]read{}, 0
	var names []string
	for _, topic := range topics {
		names = append(names, topic.Topic)
		wanted += topic.Count
	}
	client := franzClient(bootstrap, kgo.ConsumeTopics(names...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	for ctx, seen := within(), 0; seen < wanted && ctx.Err() == nil; {
		fetches := client.PollFetches(ctx)
		fail(fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			headers := [][2]any{}
			for _, header := range r.Headers {
				headers = append(headers, [2]any{header.Key, tohex(header.Value)})
			}
			records[r.Topic] = append(records[r.Topic],
				read{r.Partition, r.Offset, r.Timestamp.UnixMilli(), tohex(r.Key), tohex(r.Value), headers})
			seen++
		})
	}
	return records
}

func (franz) group(bootstrap, topic, group string, leave <-chan struct{}) {
	assigned := map[int32]bool{}
	tell := func() {
		partitions := []int32{}
		for partition := range assigned {
			partitions = append(partitions, partition)
		}
		say(map[string]any{"assigned": partitions})
	}
	client := franzClient(bootstrap, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			for _, partition := range added[topic] {
				assigned[partition] = true
			}
			tell()
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			for _, partition := range lost[topic] {
				delete(assigned, partition)
			}
			tell()
		}))
	for {
		select {
		case <-leave:
			client.AllowRebalance()
			client.Close()
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		fetches := client.PollRecords(ctx, 200)
		cancel()
		read := [][2]int64{}
		fetches.EachRecord(func(r *kgo.Record) { read = append(read, [2]int64{int64(r.Partition), r.Offset}) })
		if len(read) > 0 {
			say(map[string]any{"records": read})
			fail(client.CommitUncommittedOffsets(context.Background()))
		}
		client.AllowRebalance()
	}
}

func (franz) transact(bootstrap, topic string) []string {
	client := franzClient(bootstrap, kgo.TransactionalID("franz-"+topic), kgo.DefaultProduceTopic(topic))
	for _, one := range []struct {
		value  string
		commit kgo.TransactionEndTry
	}{{"first", kgo.TryCommit}, {"dropped", kgo.TryAbort}, {"second", kgo.TryCommit}} {
		fail(client.BeginTransaction())
		fail(client.ProduceSync(within(), kgo.StringRecord(one.value)).FirstErr())
		fail(client.EndTransaction(within(), one.commit))
	}
	client.Close()
	reader := franzClient(bootstrap, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer reader.Close()
	var values []string
	for ctx := within(); len(values) < 2 && ctx.Err() == nil; {
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

func (franz) admin(bootstrap, topic string) map[string]any {
	client := franzClient(bootstrap)
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err := admin.CreateTopic(within(), 3, 1, nil, topic)
	fail(err)
	value := "123456789"
	_, err = admin.AlterTopicConfigs(within(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic)
	fail(err)
	configs, err := admin.DescribeTopicConfigs(within(), topic)
	fail(err)
	retention := ""
	for _, config := range configs[0].Configs {
		if config.Key == "retention.ms" {
			retention = config.MaybeValue()
		}
	}
	_, err = admin.CreatePartitions(within(), 2, topic)
	fail(err)
	topics, err := admin.ListTopics(within(), topic)
	fail(err)
	partitions := len(topics[topic].Partitions)
	_, err = admin.DeleteTopics(within(), topic)
	fail(err)
	left, err := admin.ListTopics(within())
	fail(err)
	return map[string]any{"partitions": partitions, "retention": retention, "listed": topics.Has(topic), "gone": !left.Has(topic)}
}
