package main

import (
	"errors"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr"
)

// The calls that Redpanda Console makes of a cluster, page by page, with the library that it uses. What it does not tolerate to fail
// ends the program.
func console(bootstrap, registry string) map[string]any {
	client := franzClient(bootstrap)
	defer client.Close()
	admin := kadm.NewClient(client)
	said := map[string]any{}
	overview(admin, said)
	topicPages(client, admin, said)
	groupPages(client, admin, said)
	securityPages(admin, said)
	schemaPages(registry, said)
	return said
}

func overview(admin *kadm.Client, said map[string]any) {
	metadata, err := admin.Metadata(within())
	fail(err)
	said["cluster"] = []any{len(metadata.Cluster), metadata.Controller >= 0, len(metadata.Brokers)}
	versions, err := admin.ApiVersions(within())
	fail(err)
	versions.Each(func(broker kadm.BrokerApiVersions) {
		fail(broker.Err)
		// each panel is there if the broker has its API
		var missing []int16
		for _, key := range []int16{2, 8, 9, 15, 16, 19, 20, 21, 29, 30, 31, 32, 35, 37, 42, 44, 45, 46, 47, 48, 50, 51} {
			if _, has := broker.KeyMaxVersion(key); !has {
				missing = append(missing, key)
			}
		}
		said["missing"] = missing
	})
	settings, err := admin.DescribeBrokerConfigs(within(), 1)
	fail(err)
	said["broker_settings"] = len(settings[0].Configs)
	fail(settings[0].Err)
}

func topicPages(client *kgo.Client, admin *kadm.Client, said map[string]any) {
	const name = "console-a"
	created, err := admin.CreateTopics(within(), 2, -1, map[string]*string{"cleanup.policy": kadm.StringPtr("delete")}, name)
	fail(err)
	fail(created[name].Err)
	for i := range 6 {
		record := &kgo.Record{Topic: name, Key: []byte{byte('a' + i)}, Value: []byte("v"), Timestamp: time.UnixMilli(1_000 * int64(i+1))}
		fail(client.ProduceSync(within(), record).FirstErr())
	}
	settings := kmsg.NewPtrDescribeConfigsRequest()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
	settings.Resources = append(settings.Resources, resource)
	settings.IncludeSynonyms, settings.IncludeDocumentation = true, true
	described, err := settings.RequestWith(within(), client)
	fail(err)
	documented := true
	for _, config := range described.Resources[0].Configs {
		documented = documented && config.Documentation != nil && *config.Documentation != ""
	}
	said["documented"] = documented
	dirs, err := admin.DescribeAllLogDirs(within(), nil)
	fail(err)
	var bytes int64
	for _, broker := range dirs {
		fail(broker.Error())
		bytes += broker.Size()
	}
	said["bytes"] = bytes > 300
	starts, err := admin.ListStartOffsets(within(), name)
	fail(err)
	ends, err := admin.ListEndOffsets(within(), name)
	fail(err)
	later, err := admin.ListOffsetsAfterMilli(within(), 4_000, name)
	fail(err)
	sum := func(offsets kadm.ListedOffsets) (sum int64) {
		offsets.Each(func(offset kadm.ListedOffset) { fail(offset.Err); sum += offset.Offset })
		return sum
	}
	said["offsets"] = []int64{sum(starts), sum(ends), sum(ends) - sum(later)}
	policy := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("86400000")}}
	altered, err := admin.AlterTopicConfigs(within(), policy, name)
	fail(err)
	fail(altered[0].Err)
	grown, err := admin.UpdatePartitions(within(), 3, name)
	fail(err)
	fail(grown[name].Err)
	gone, err := admin.DeleteRecords(within(), ends.Offsets())
	fail(err)
	fail(gone.Error())
	starts, err = admin.ListStartOffsets(within(), name)
	fail(err)
	said["after_deletion"] = sum(starts)
	moves, err := admin.ListPartitionReassignments(within(), nil)
	fail(err)
	said["reassignments"] = len(moves)
	var wish kadm.AlterPartitionAssignmentsReq
	wish.Assign(name, 0, []int32{1})
	moved, err := admin.AlterPartitionAssignments(within(), wish)
	fail(err)
	fail(moved.Error())
	producers, err := admin.DescribeProducers(within(), nil)
	fail(err)
	said["producers"] = len(producers[name].Partitions) > 0
}

func groupPages(client *kgo.Client, admin *kadm.Client, said map[string]any) {
	const group, topic = "console-group", "console-a"
	var wish kadm.Offsets
	wish.AddOffset(topic, 0, 1, -1)
	wish.AddOffset(topic, 1, 2, -1)
	fail(admin.CommitAllOffsets(within(), group, wish))
	listed, err := admin.ListGroups(within())
	fail(err)
	described, err := admin.DescribeGroups(within(), listed.Groups()...)
	fail(err)
	fail(described.Error())
	offsets := admin.FetchManyOffsets(within(), listed.Groups()...)
	fail(offsets.Error())
	committed, _ := offsets[group].Fetched.Lookup(topic, 1)
	said["group"] = []any{described[group].State, len(described[group].Members), committed.At}
	lag, err := admin.Lag(within(), group)
	fail(err)
	said["lag_known"] = lag.Error() == nil && lag[group].Lag.Total() >= 0
	var partitions kadm.TopicsSet
	partitions.Add(topic, 0)
	removed, err := admin.DeleteOffsets(within(), group, partitions)
	fail(err)
	fail(removed.Error())
	deleted, err := admin.DeleteGroup(within(), group)
	fail(err)
	fail(deleted.Err)
	unknown, err := admin.DescribeGroups(within(), group)
	fail(err)
	state := unknown[group].State
	if errors.Is(unknown[group].Err, kerr.GroupIDNotFound) {
		state = "unknown"
	}
	said["group_deleted"] = state
	out, err := admin.DeleteTopics(within(), topic)
	fail(err)
	fail(out.Error())
}

func securityPages(admin *kadm.Client, said map[string]any) {
	rule := kadm.NewACLs().Topics("console-").ResourcePatternType(kadm.ACLPatternPrefixed).
		Allow("User:ann").AllowHosts("*").Operations(kadm.OpRead, kadm.OpDescribe)
	made, err := admin.CreateACLs(within(), rule)
	fail(err)
	for _, one := range made {
		fail(one.Err)
	}
	every := kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).
		Allow().AllowHosts().Deny().DenyHosts().Operations()
	found, err := admin.DescribeACLs(within(), every)
	fail(err)
	rules := 0
	for _, one := range found {
		fail(one.Err)
		rules += len(one.Described)
	}
	said["rules"] = rules
	gone, err := admin.DeleteACLs(within(), every)
	fail(err)
	deleted := 0
	for _, one := range gone {
		fail(one.Err)
		deleted += len(one.Deleted)
	}
	said["rules_deleted"] = deleted
	user := kadm.UpsertSCRAM{User: "console-ann", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "secret"}
	users, err := admin.AlterUserSCRAMs(within(), nil, []kadm.UpsertSCRAM{user})
	fail(err)
	fail(users.Error())
	known, err := admin.DescribeUserSCRAMs(within())
	fail(err)
	said["users"] = len(known)
	limit := kadm.AlterClientQuotaEntry{
		Entity: kadm.ClientQuotaEntity{{Type: "user", Name: kadm.StringPtr("console-ann")}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "controller_mutation_rate", Value: 5}, {Key: "producer_byte_rate", Value: 1000}},
	}
	limited, err := admin.AlterClientQuotas(within(), []kadm.AlterClientQuotaEntry{limit})
	fail(err)
	fail(limited[0].Err)
	quotas, err := admin.DescribeClientQuotas(within(), false, nil)
	fail(err)
	said["quotas"] = len(quotas[0].Values)
}

func schemaPages(registry string, said map[string]any) {
	client, err := sr.NewClient(sr.URLs(registry))
	fail(err)
	types, err := client.SupportedTypes(within())
	fail(err)
	var kinds []string
	for _, kind := range types {
		kinds = append(kinds, kind.String())
	}
	sort.Strings(kinds)
	said["schema_types"] = kinds
	const subject = "console-a-value"
	schema := sr.Schema{Schema: `{"type":"record","name":"A","fields":[{"name":"x","type":"long"}]}`}
	created, err := client.CreateSchema(within(), subject, schema)
	fail(err)
	subjects, err := client.Subjects(sr.WithParams(within(), sr.ShowDeleted))
	fail(err)
	versions, err := client.SubjectVersions(within(), subject)
	fail(err)
	usages, err := client.SchemaUsagesByID(within(), created.ID)
	fail(err)
	references, err := client.SchemaReferences(within(), subject, 1)
	fail(err)
	said["schemas"] = []int{len(subjects), len(versions), len(usages), len(references)}
	for _, level := range client.Compatibility(within()) {
		fail(level.Err)
		said["compatibility"] = level.Level.String()
	}
	for _, mode := range client.Mode(within()) {
		fail(mode.Err)
		said["mode"] = mode.Mode.String()
	}
	changed := sr.Schema{Schema: `{"type":"record","name":"A","fields":[{"name":"y","type":"long"}]}`}
	checked, err := client.CheckCompatibility(within(), subject, 1, changed)
	fail(err)
	said["compatible"] = checked.Is
	_, err = client.DeleteSubject(within(), subject, sr.SoftDelete)
	fail(err)
	_, err = client.DeleteSubject(within(), subject, sr.HardDelete)
	fail(err)
	// one that knows no contexts says so by 404
	_, err = client.Contexts(within())
	var refused *sr.ResponseError
	said["contexts"] = err == nil || (errors.As(err, &refused) && refused.StatusCode == 404)
}
