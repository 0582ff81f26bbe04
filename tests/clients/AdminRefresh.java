// The calls that kafka-ui makes of Kafka's Java AdminClient at each refresh of a cluster, in its order. Prints one JSON object: what each gave,
// or the class of its error. A step that kafka-ui does not tolerate to fail ends the program with status 1.
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;

public class AdminRefresh {
    private static final Map<String, String> SAID = new TreeMap<>();
    private static boolean offline;

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", "30000"))) {
            refresh(admin);
        }
        String report = SAID.entrySet().stream().map(one -> "\"" + one.getKey() + "\": " + one.getValue()).collect(Collectors.joining(", "));
        System.out.println("{" + report + "}");
        System.exit(offline ? 1 : 0);
    }

    private static void refresh(Admin admin) {
        List<Node> nodes = new ArrayList<>();
        must("cluster", () -> {
            DescribeClusterResult cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
            nodes.addAll(cluster.nodes().get());
            String operations = cluster.authorizedOperations().get().stream().map(one -> text(one.name())).sorted().collect(Collectors.joining(", "));
            return "{\"nodes\": " + nodes.size() + ", \"controller\": " + cluster.controller().get().id() + ", \"id\": " + text(cluster.clusterId().get()) + ", \"operations\": [" + operations + "]}";
        });
        int controller = nodes.isEmpty() ? -1 : nodes.get(0).id();
        may("broker", () -> {
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(controller));
            Config config = admin.describeConfigs(List.of(broker)).all().get().get(broker);
            return "{\"version\": " + value(config, "inter.broker.protocol.version") + ", \"delete\": " + value(config, "delete.topic.enable") + ", \"settings\": " + config.entries().size() + "}";
        });
        must("features", () -> {
            Map<String, String> levels = new TreeMap<>();
            admin.describeFeatures().featureMetadata().get().finalizedFeatures().forEach((name, range) -> levels.put(name, String.valueOf(range.maxVersionLevel())));
            return object(levels);
        });
        may("acls", () -> String.valueOf(admin.describeAcls(AclBindingFilter.ANY).values().get().size()));
        must("quorum", () -> {
            var quorum = admin.describeMetadataQuorum().quorumInfo().get();
            return "{\"leader\": " + quorum.leaderId() + ", \"voters\": " + quorum.voters().size() + ", \"observers\": " + quorum.observers().size() + "}";
        });
        may("log_dirs", () -> {
            Map<String, String> sizes = new TreeMap<>();
            List<Integer> ids = nodes.stream().map(Node::id).collect(Collectors.toList());
            admin.describeLogDirs(ids).allDescriptions().get().values().forEach(dirs -> dirs.values().forEach(dir -> {
                sizes.put("*", dir.totalBytes().getAsLong() > 0 && dir.usableBytes().getAsLong() > 0 ? "true" : "false");
                dir.replicaInfos().forEach((partition, replica) -> sizes.put(partition.toString(), String.valueOf(replica.size())));
            }));
            return object(sizes);
        });
        topics(admin);
        groups(admin);
    }

    private static void topics(Admin admin) {
        Map<String, TopicDescription> topics = new TreeMap<>();
        must("topics", () -> {
            Collection<String> names = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get();
            topics.putAll(admin.describeTopics(names).allTopicNames().get());
            Map<String, String> partitions = new TreeMap<>();
            topics.forEach((name, topic) -> partitions.put(name, String.valueOf(topic.partitions().stream().filter(p -> p.leader() != null && p.isr().size() == 1).count())));
            return object(partitions);
        });
        must("topic_configs", () -> {
            List<ConfigResource> resources = topics.keySet().stream().map(name -> new ConfigResource(ConfigResource.Type.TOPIC, name)).collect(Collectors.toList());
            DescribeConfigsOptions all = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
            Map<String, String> retention = new TreeMap<>();
            admin.describeConfigs(resources, all).all().get().forEach((topic, config) -> {
                ConfigEntry entry = config.get("retention.ms");
                boolean documented = config.entries().stream().allMatch(one -> one.documentation() != null && !one.documentation().isEmpty());
                retention.put(topic.name(), "[" + text(entry.value()) + ", " + text(entry.source().name()) + ", " + entry.synonyms().size() + ", " + documented + "]");
            });
            return object(retention);
        });
        must("offsets", () -> {
            Map<TopicPartition, OffsetSpec> latest = new HashMap<>();
            Map<TopicPartition, OffsetSpec> earliest = new HashMap<>();
            topics.forEach((name, topic) -> topic.partitions().forEach(partition -> {
                latest.put(new TopicPartition(name, partition.partition()), OffsetSpec.latest());
                earliest.put(new TopicPartition(name, partition.partition()), OffsetSpec.earliest());
            }));
            Map<String, String> offsets = new TreeMap<>();
            var ends = admin.listOffsets(latest).all().get();
            admin.listOffsets(earliest).all().get().forEach((partition, begin) -> offsets.put(partition.toString(), "[" + begin.offset() + ", " + ends.get(partition).offset() + "]"));
            return object(offsets);
        });
    }

    private static void groups(Admin admin) {
        must("groups", () -> {
            List<String> names = admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get().stream().map(GroupListing::groupId).collect(Collectors.toList());
            Map<String, String> groups = new TreeMap<>();
            var described = admin.describeConsumerGroups(names).all().get();
            Map<String, ListConsumerGroupOffsetsSpec> wanted = new HashMap<>();
            names.forEach(name -> wanted.put(name, new ListConsumerGroupOffsetsSpec()));
            var offsets = names.isEmpty() ? null : admin.listConsumerGroupOffsets(wanted).all().get();
            for (String name : names) {
                groups.put(name, "[" + text(described.get(name).groupState().name()) + ", " + described.get(name).members().size() + ", " + offsets.get(name).size() + "]");
            }
            return object(groups);
        });
    }

    private static void must(String step, Callable<String> call) {
        offline |= !may(step, call);
    }

    private static boolean may(String step, Callable<String> call) {
        try {
            SAID.put(step, call.call());
            return true;
        } catch (Exception error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            SAID.put(step, text(cause.getClass().getSimpleName() + ": " + cause.getMessage()));
            return false;
        }
    }

    private static String value(Config config, String name) {
        ConfigEntry entry = config.get(name);
        return entry == null ? "null" : text(entry.value());
    }

    private static String object(Map<String, String> fields) {
        return fields.entrySet().stream().map(one -> text(one.getKey()) + ": " + one.getValue()).collect(Collectors.joining(", ", "{", "}"));
    }

    private static String text(String value) {
        return value == null ? "null" : "\"" + value.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }
}
