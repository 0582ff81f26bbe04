// Kafka's own Java client with logins and certificates: LoginClient CLIENT.properties TOPIC GROUP VALUE… ; see login.py for the report.
import java.io.FileInputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class LoginClient {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        try (FileInputStream in = new FileInputStream(args[0])) {
            settings.load(in);
        }
        try {
            List<String> values = Arrays.asList(args).subList(3, args.length);
            produce(settings, args[1], values);
            String read = consume(settings, args[1], args[2], values.size()).stream()
                .map(value -> "\"" + value + "\"").collect(Collectors.joining(", "));
            System.out.println("{\"read\": [" + read + "], \"throttle_ms\": 0}");
        } catch (AuthenticationException | AuthorizationException refused) {
            System.out.println("{\"refused\": \"" + refused.getClass().getSimpleName() + "\"}");
        }
    }

    private static void produce(Properties settings, String topic, List<String> values) throws Exception {
        Properties own = new Properties();
        own.putAll(settings);
        own.put("max.block.ms", "20000");
        long pause = Long.parseLong(System.getProperty("every.ms", "0"));
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(own, new StringSerializer(), new StringSerializer())) {
            for (String value : values) {
                producer.send(new ProducerRecord<>(topic, value)).get();
                Thread.sleep(pause);
            }
        } catch (ExecutionException failed) {
            if (failed.getCause() instanceof RuntimeException) {
                throw (RuntimeException) failed.getCause();
            }
            throw failed;
        }
    }

    private static List<String> consume(Properties settings, String topic, String group, int count) {
        Properties own = new Properties();
        own.putAll(settings);
        own.put("group.id", group);
        own.put("auto.offset.reset", "earliest");
        List<String> read = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(own, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (read.size() < count && System.nanoTime() < deadline) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    read.add(record.value());
                }
            }
        }
        return read;
    }
}
