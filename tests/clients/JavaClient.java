// Kafka's own Java client under the suite's contract for members of a group; see script.py. Run from source by the java launcher.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class JavaClient {
    public static void main(String[] args) throws Exception {
        if (args.length != 4 || !args[0].equals("group")) {
            throw new IllegalArgumentException("usage: group BOOTSTRAP TOPIC GROUP");
        }
        Thread leaving = new Thread(JavaClient::waitForLeave);
        leaving.setDaemon(true);
        leaving.start();
        group(args[1], args[2], args[3], leaving);
        say("{\"left\": true}");
    }

    private static void group(String bootstrap, String topic, String group, Thread leaving) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", group);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        String protocol = System.getenv().getOrDefault("MEMBER_PROTOCOL", "classic");
        if (protocol.equals("consumer")) {
            settings.put("group.protocol", "consumer");
        } else {
            settings.put("session.timeout.ms", "10000");
            settings.put("heartbeat.interval.ms", "500");
        }
        if (protocol.equals("cooperative")) {
            settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        }
        if (System.getenv("MEMBER_INSTANCE") != null) {
            settings.put("group.instance.id", System.getenv("MEMBER_INSTANCE"));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            if (topic.startsWith("^")) {
                consumer.subscribe(new SubscriptionPattern(topic.substring(1)), new Assignments());
            } else {
                consumer.subscribe(List.of(topic), new Assignments());
            }
            while (leaving.isAlive()) {
                Iterable<ConsumerRecord<byte[], byte[]>> polled = consumer.poll(Duration.ofMillis(100));
                String read = StreamSupport.stream(polled.spliterator(), false)
                    .map(record -> "[" + record.partition() + ", " + record.offset() + "]").collect(Collectors.joining(", "));
                if (!read.isEmpty()) {
                    say("{\"records\": [" + read + "]}");
                    consumer.commitSync();
                }
            }
        }
    }

    private static class Assignments implements ConsumerRebalanceListener {
        private final Set<TopicPartition> own = new HashSet<>();

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            own.removeAll(partitions);
            report();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            own.addAll(partitions);
            report();
        }

        private void report() {
            say("{\"assigned\": " + own.stream().map(TopicPartition::partition).sorted().collect(Collectors.toList()) + "}");
        }
    }

    private static void waitForLeave() {
        try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in))) {
            String line = in.readLine();
            while (line != null && !line.contains("leave")) {
                line = in.readLine();
            }
        } catch (java.io.IOException closed) {
            // a closed stdin means the same
        }
    }

    private static synchronized void say(String event) {
        System.out.println(event);
        System.out.flush();
    }
}
