// The calls that AKHQ makes of a cluster and its registry, page by page, with the Kafka client that it uses. Prints one JSON object. What
// AKHQ does not tolerate to fail ends the program.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ConsumerGroupListing;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class AkhqCalls {
    private static final String TOPIC = "akhq-a";
    private static final String GROUP = "akhq-group";
    private static final Map<String, String> SAID = new TreeMap<>();
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    public static void main(String[] args) throws Exception {
        try (AdminClient admin = AdminClient.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", "30000"))) {
            nodes(admin);
            topics(admin, args[0]);
            groups(admin, args[0]);
            rights(admin);
            admin.deleteTopics(List.of(TOPIC)).all().get();
        }
        registry(args[1]);
        String report = SAID.entrySet().stream().map(one -> "\"" + one.getKey() + "\": " + one.getValue()).collect(Collectors.joining(", "));
        System.out.println("{" + report + "}");
    }

    private static void nodes(AdminClient admin) throws Exception {
        DescribeClusterResult cluster = admin.describeCluster();
        int node = cluster.nodes().get().iterator().next().id();
        SAID.put("cluster", "[" + cluster.nodes().get().size() + ", " + cluster.controller().get().id() + ", " + cluster.clusterId().get().length() + "]");
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
        SAID.put("broker_settings", String.valueOf(admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().size()));
        Map<Integer, Map<String, LogDirDescription>> dirs = admin.describeLogDirs(List.of(node)).allDescriptions().get();
        SAID.put("log_dirs", String.valueOf(dirs.get(node).size()));
    }

    private static void topics(AdminClient admin, String bootstrap) throws Exception {
        admin.createTopics(List.of(new NewTopic(TOPIC, 2, (short) 1).configs(Map.of("cleanup.policy", "delete")))).all().get();
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "acks", "all");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < 6; i++) {
                producer.send(new ProducerRecord<>(TOPIC, i % 2, 1_000L * (i + 1), "k" + i, "v" + i)).get();
            }
        }
        boolean listed = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get().contains(TOPIC);
        TopicDescription described = admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC);
        SAID.put("topic", "[" + listed + ", " + described.partitions().size() + ", " + described.partitions().get(0).isr().size() + "]");
        // AKHQ replaces all settings of a topic by the old call
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        List<ConfigEntry> wanted = List.of(new ConfigEntry("retention.ms", "86400000"), new ConfigEntry("cleanup.policy", "compact,delete"));
        admin.alterConfigs(Map.of(topic, new Config(wanted))).all().get();
        Config config = admin.describeConfigs(List.of(topic)).all().get().get(topic);
        SAID.put("retention", text(config.get("retention.ms").value() + " " + config.get("retention.ms").isDefault()));
        SAID.put("policy", text(config.get("cleanup.policy").value()));
        admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(3))).all().get();
        TopicPartition first = new TopicPartition(TOPIC, 0);
        TopicPartition second = new TopicPartition(TOPIC, 1);
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, "akhq-browser")) {
            consumer.assign(List.of(first, second));
            SAID.put("offsets", "[" + consumer.beginningOffsets(List.of(first)).get(first) + ", " + consumer.endOffsets(List.of(second)).get(second) + "]");
            SAID.put("by_time", "[" + consumer.offsetsForTimes(Map.of(first, 0L)).get(first).offset() + ", " + consumer.offsetsForTimes(Map.of(second, 3_500L)).get(second).offset() + "]");
            consumer.seek(first, 1);
            consumer.seek(second, 2);
            List<String> values = new ArrayList<>();
            long until = System.nanoTime() + Duration.ofSeconds(30).toNanos();
            while (values.size() < 3 && System.nanoTime() < until) {
                for (ConsumerRecord<String, String> one : consumer.poll(Duration.ofMillis(200))) {
                    values.add(one.value());
                }
            }
            SAID.put("values", values.stream().sorted().map(AkhqCalls::text).collect(Collectors.joining(", ", "[", "]")));
        }
        admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(2))).all().get();
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, "akhq-browser")) {
            SAID.put("after_deletion", String.valueOf(consumer.beginningOffsets(List.of(first)).get(first)));
        }
    }

    private static void groups(AdminClient admin, String bootstrap) throws Exception {
        TopicPartition first = new TopicPartition(TOPIC, 0);
        TopicPartition second = new TopicPartition(TOPIC, 1);
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, GROUP)) {
            consumer.assign(List.of(first, second));
            consumer.commitSync(Map.of(first, new OffsetAndMetadata(2), second, new OffsetAndMetadata(1)));
        }
        Collection<String> ids = admin.listConsumerGroups().all().get().stream().map(ConsumerGroupListing::groupId).collect(Collectors.toList());
        Map<String, ConsumerGroupDescription> described = admin.describeConsumerGroups(ids).all().get();
        long committed = admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get().get(second).offset();
        SAID.put("group", "[" + text(described.get(GROUP).state().toString()) + ", " + described.get(GROUP).members().size() + ", " + committed + "]");
        admin.deleteConsumerGroupOffsets(GROUP, Set.of(first)).all().get();
        SAID.put("offsets_left", String.valueOf(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata().get().size()));
        admin.deleteConsumerGroups(List.of(GROUP)).all().get();
        SAID.put("groups_left", String.valueOf(admin.listConsumerGroups().all().get().stream().filter(group -> group.groupId().equals(GROUP)).count()));
    }

    private static void rights(AdminClient admin) throws Exception {
        ResourcePatternFilter resources = new ResourcePatternFilter(ResourceType.ANY, null, PatternType.ANY);
        try {
            SAID.put("rights", String.valueOf(admin.describeAcls(new AclBindingFilter(resources, AccessControlEntryFilter.ANY)).values().get().size()));
        } catch (ExecutionException refused) {
            if (!(refused.getCause() instanceof SecurityDisabledException)) {
                throw refused;
            }
            SAID.put("rights", text("off"));
        }
    }

    private static void registry(String url) throws Exception {
        String subject = "akhq-a-value";
        String schema = "{\"schema\": \"{\\\"type\\\":\\\"record\\\",\\\"name\\\":\\\"A\\\",\\\"fields\\\":[{\\\"name\\\":\\\"x\\\",\\\"type\\\":\\\"long\\\"}]}\"}";
        Map<String, Integer> codes = new HashMap<>();
        codes.put("register", ask("POST", url + "/subjects/" + subject + "/versions", schema));
        codes.put("subjects", ask("GET", url + "/subjects", null));
        codes.put("latest", ask("GET", url + "/subjects/" + subject + "/versions/latest", null));
        codes.put("versions", ask("GET", url + "/subjects/" + subject + "/versions", null));
        codes.put("lookup", ask("POST", url + "/subjects/" + subject, schema));
        codes.put("config", ask("GET", url + "/config/" + subject + "?defaultToGlobal=true", null));
        codes.put("set_config", ask("PUT", url + "/config/" + subject, "{\"compatibility\": \"FULL\"}"));
        codes.put("compatibility", ask("POST", url + "/compatibility/subjects/" + subject + "/versions/latest?verbose=true", schema));
        codes.put("delete", ask("DELETE", url + "/subjects/" + subject, null));
        codes.put("gone", ask("GET", url + "/subjects/" + subject + "/versions/latest", null));
        SAID.put("registry", new TreeMap<>(codes).entrySet().stream().map(one -> text(one.getKey()) + ": " + one.getValue()).collect(Collectors.joining(", ", "{", "}")));
    }

    private static int ask(String method, String url, String body) throws Exception {
        HttpRequest.BodyPublisher sent = body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(body);
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).method(method, sent)
            .header("Content-Type", "application/vnd.schemaregistry.v1+json").header("Accept", "application/vnd.schemaregistry.v1+json, application/json").build();
        return HTTP.send(request, HttpResponse.BodyHandlers.ofString()).statusCode();
    }

    private static KafkaConsumer<String, String> consumer(String bootstrap, String group) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", "false", "auto.offset.reset", "earliest");
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    private static String text(String value) {
        return "\"" + value + "\"";
    }
}
