// Runs Flink SQL in this JVM, a statement per line of its input. Arguments are Flink's settings, NAME=VALUE each.
// After each statement it prints one line: `done NUMBER`, and after an INSERT what its job took from the first record that the
// Kafka consumer handed over to the end of the job: ` CPU-NANOSECONDS NANOSECONDS`, the CPU being that of the whole JVM.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

public class Statements {
    public static void main(String[] settings) throws Exception {
        Configuration configuration = new Configuration();
        for (String setting : settings) {
            int equals = setting.indexOf('=');
            configuration.setString(setting.substring(0, equals), setting.substring(equals + 1));
        }
        TableEnvironment tables = TableEnvironment.create(
                EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        int number = 0;
        for (String statement = input.readLine(); statement != null; statement = input.readLine()) {
            String cost = statement.startsWith("INSERT") ? insert(tables, statement) : "";
            if (cost.isEmpty()) {
                tables.executeSql(statement).await();
            }
            System.out.println("done " + number + cost);
            number++;
        }
        System.exit(0);
    }

    private static String insert(TableEnvironment tables, String statement) throws Exception {
        FirstRecord first = new FirstRecord();
        Thread watching = new Thread(first);
        watching.start();
        TableResult job = tables.executeSql(statement);
        job.await();
        Moment end = Moment.now();
        watching.interrupt();
        watching.join();
        if (first.at == null) {
            throw new IllegalStateException("the consumer has read nothing");
        }
        return " " + (end.cpu - first.at.cpu) + " " + (end.clock - first.at.clock);
    }

    private record Moment(long cpu, long clock) {
        static Moment now() {
            var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
            return new Moment(system.getProcessCpuTime(), System.nanoTime());
        }
    }

    /** Asks what the Kafka consumers of this JVM tell of themselves until one of them has a record. */
    private static class FirstRecord implements Runnable {
        volatile Moment at;

        @Override
        public void run() {
            try {
                while (!anyRecord()) {
                    Thread.sleep(5);
                }
                at = Moment.now();
            } catch (InterruptedException ended) {
                // the job ended before anything was read
            } catch (JMException wrong) {
                throw new IllegalStateException(wrong);
            }
        }

        private static boolean anyRecord() throws JMException {
            MBeanServer server = ManagementFactory.getPlatformMBeanServer();
            ObjectName consumers = new ObjectName("kafka.consumer:type=consumer-fetch-manager-metrics,client-id=*");
            for (ObjectName consumer : server.queryNames(consumers, null)) {
                if (read(server, consumer) > 0) {
                    return true;
                }
            }
            return false;
        }

        private static double read(MBeanServer server, ObjectName consumer) throws JMException {
            try {
                return (double) server.getAttribute(consumer, "records-consumed-total");
            } catch (javax.management.InstanceNotFoundException | javax.management.AttributeNotFoundException gone) {
                return 0;
            }
        }
    }
}
