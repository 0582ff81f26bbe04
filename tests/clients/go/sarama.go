package main

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"
)

type saramaClient struct{}

var saramaCodecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func saramaConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 10 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return config
}

func (saramaClient) produce(bootstrap string, sends []send) []sent {
	var all []sent
	for _, send := range sends {
		config := saramaConfig()
		config.Producer.Compression = saramaCodecs[send.Codec]
		producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
		fail(err)
		var messages []*sarama.ProducerMessage
		for _, r := range send.Records {
			message := &sarama.ProducerMessage{Topic: send.Topic, Partition: send.Partition, Timestamp: time.UnixMilli(r.Timestamp)}
			if r.Key != nil {
				message.Key = sarama.ByteEncoder(unhex(r.Key))
			}
			if r.Value != nil {
				message.Value = sarama.ByteEncoder(unhex(r.Value))
			}
			for _, header := range r.Headers {
				message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(*header[0]), Value: unhex(header[1])})
			}
			messages = append(messages, message)
		}
		fail(producer.SendMessages(messages))
		one := sent{Topic: send.Topic, Partition: send.Partition}
		for _, message := range messages {
			one.Offsets = append(one.Offsets, message.Offset)
		}
		fail(producer.Close())
		all = append(all, one)
	}
	return all
}

func (saramaClient) consume(bootstrap string, topics []topic) map[string][]read {
	consumer, err := sarama.NewConsumer([]string{bootstrap}, saramaConfig())
	fail(err)
	defer consumer.Close()
	records := map[string][]read{}
	for _, topic := range topics {
		for partition := int32(0); partition < topic.Partitions; partition++ {
			reader, err := consumer.ConsumePartition(topic.Topic, partition, sarama.OffsetOldest)
			fail(err)
			for range topic.Count / int(topic.Partitions) {
				select {
				case m := <-reader.Messages():
					headers := [][2]any{}
					for _, header := range m.Headers {
						headers = append(headers, [2]any{string(header.Key), tohex(header.Value)})
					}
					records[topic.Topic] = append(records[topic.Topic],
						read{m.Partition, m.Offset, m.Timestamp.UnixMilli(), tohex(m.Key), tohex(m.Value), headers})
				case <-time.After(deadline):
					fail(errors.New("nothing came in time"))
				}
			}
			fail(reader.Close())
		}
	}
	return records
}

type member struct{ ctx context.Context }

func (member) Setup(session sarama.ConsumerGroupSession) error {
	partitions := []int32{}
	for _, claimed := range session.Claims() {
		partitions = append(partitions, claimed...)
	}
	say(map[string]any{"assigned": partitions})
	return nil
}

func (member) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	say(map[string]any{"assigned": []int32{}})
	return nil
}

func (m member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message := <-claim.Messages():
			if message == nil {
				return nil
			}
			say(map[string]any{"records": [][2]int64{{int64(message.Partition), message.Offset}}})
			session.MarkMessage(message, "")
			session.Commit()
		case <-session.Context().Done():
			return nil
		}
	}
}

func (saramaClient) group(bootstrap, topic, name string, leave <-chan struct{}) {
	group, err := sarama.NewConsumerGroup([]string{bootstrap}, name, saramaConfig())
	fail(err)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-leave; cancel() }()
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{topic}, member{ctx}); err != nil && ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond) // the broker is away
		}
	}
	fail(group.Close())
}

func (saramaClient) transact(bootstrap, topic string) []string {
	config := saramaConfig()
	config.Producer.Transaction.ID = "sarama-" + topic
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	fail(err)
	for _, one := range []struct {
		value string
		end   func() error
	}{{"first", producer.CommitTxn}, {"dropped", producer.AbortTxn}, {"second", producer.CommitTxn}} {
		fail(producer.BeginTxn())
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(one.value)})
		fail(err)
		fail(one.end())
	}
	fail(producer.Close())
	config = saramaConfig()
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	fail(err)
	defer consumer.Close()
	reader, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	fail(err)
	var values []string
	for len(values) < 2 {
		select {
		case m := <-reader.Messages():
			values = append(values, string(m.Value))
		case <-time.After(deadline):
			return values
		}
	}
	return values
}

func (saramaClient) admin(bootstrap, topic string) map[string]any {
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, saramaConfig())
	fail(err)
	defer admin.Close()
	fail(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false))
	value := "123456789"
	fail(admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}, false))
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
	fail(err)
	fail(admin.CreatePartitions(topic, 5, nil, false))
	described, err := admin.DescribeTopics([]string{topic})
	fail(err)
	listed, err := admin.ListTopics()
	fail(err)
	_, there := listed[topic]
	fail(admin.DeleteTopic(topic))
	left, err := admin.ListTopics()
	fail(err)
	_, still := left[topic]
	return map[string]any{"partitions": len(described[0].Partitions), "retention": entries[0].Value, "listed": there, "gone": !still}
}
