// Kafka's own command-line tools, many in one JVM: a line of the plan is a class and its arguments, separated by tabs; "<FILE" gives it an
// input. Prints one JSON object per line: how the tool ended and what it said.
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

public class Tools {
    /** Thrown where a tool would end the JVM. */
    private static class Ended extends Error {
        Ended() {
            super("ended", null, false, false);
        }
    }

    private static final PrintStream OUT = System.out;
    /** What the tool that runs wants done at the end of the JVM. */
    private static final List<Runnable> HOOKS = new ArrayList<>();
    /** How the tool that runs wanted to end first; it may catch what is thrown then and end again. */
    private static Integer ended;

    public static void main(String[] args) throws Exception {
        Exit.Procedure end = (status, message) -> {
            ended = ended == null ? status : ended;
            throw new Ended();
        };
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            List<String> words = new ArrayList<>(List.of(line.split("\t", -1)));
            InputStream input = new ByteArrayInputStream(new byte[0]);
            if (words.get(words.size() - 1).startsWith("<")) {
                input = new FileInputStream(words.remove(words.size() - 1).substring(1));
            }
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            System.setIn(input);
            System.setOut(new PrintStream(out, true));
            System.setErr(new PrintStream(err, true));
            int status = run(words.get(0), words.subList(1, words.size()).toArray(new String[0]));
            OUT.println("{\"status\": " + status + ", \"out\": " + quoted(out.toString()) + ", \"err\": " + quoted(err.toString()) + "}");
        }
        OUT.flush();
        Runtime.getRuntime().halt(0);
    }

    private static int run(String tool, String[] args) throws Exception {
        ended = null;
        int status = 0;
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (InvocationTargetException failed) {
            if (ended == null) {
                failed.getCause().printStackTrace();
                status = -1;
            }
        }
        HOOKS.forEach(Runnable::run);
        HOOKS.clear();
        return ended == null ? status : ended;
    }

    static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }
}
