// The bytes of Kafka's protocol as kafka-clients writes them.
//     Wire golden DIR API:MIN:MAX …   writes DIR/<Api>.hex: each version's request and response, all fields set ("full") and all
//                                     that can be null or empty so ("bare"), one per line
//     Wire check FILE                 reads lines "API_KEY VERSION HEX" (response bodies): each must be read to its last byte and
//                                     be written again as the same bytes; prints {"checked": n, "wrong": [...]}
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.NavigableMap;
import java.util.TreeMap;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.Struct;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;

public class Wire {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("golden")) {
            for (int i = 2; i < args.length; i++) golden(Path.of(args[1]), args[i].split(":"));
        } else {
            check(Files.readAllLines(Path.of(args[1])));
        }
    }

    static void golden(Path directory, String[] api) throws Exception {
        ApiMessageType type = ApiMessageType.fromApiKey(Short.parseShort(api[0]));
        StringBuilder lines = new StringBuilder();
        for (short version = Short.parseShort(api[1]); version <= Short.parseShort(api[2]); version++) {
            for (boolean full : new boolean[] {true, false}) {
                String kind = full ? "full" : "bare";
                Schema request = type.requestSchemas()[version];
                Schema response = type.responseSchemas()[version];
                lines.append("request ").append(version).append(' ').append(kind).append(' ');
                lines.append(hex(written(type.newRequest(), request, version, full))).append('\n');
                lines.append("response ").append(version).append(' ').append(kind).append(' ');
                lines.append(hex(written(type.newResponse(), response, version, full))).append('\n');
            }
        }
        Files.writeString(directory.resolve(type.name + ".hex"), lines.toString());
    }

    /** A message filled by its schema, read and written by its class: what comes out is the class's own form. */
    static byte[] written(ApiMessage message, Schema schema, short version, boolean full) {
        Struct filled = new Filler(full).struct(schema);
        ByteBuffer buffer = ByteBuffer.allocate(schema.sizeOf(filled));
        schema.write(buffer, filled);
        buffer.flip();
        message.read(new ByteBufferAccessor(buffer), version);
        if (buffer.hasRemaining()) throw new IllegalStateException(message.getClass() + " v" + version + " leaves bytes");
        return again(message, version);
    }

    static byte[] again(ApiMessage message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer out = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(out), cache, version);
        return out.array();
    }

    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    static void check(List<String> lines) {
        List<String> wrong = new ArrayList<>();
        for (String line : lines) {
            String[] parts = line.split(" ", 3);
            ApiMessageType type = ApiMessageType.fromApiKey(Short.parseShort(parts[0]));
            short version = Short.parseShort(parts[1]);
            byte[] bytes = HexFormat.of().parseHex(parts.length > 2 ? parts[2] : "");
            try {
                ApiMessage message = type.newResponse();
                ByteBuffer buffer = ByteBuffer.wrap(bytes);
                message.read(new ByteBufferAccessor(buffer), version);
                String again = hex(again(message, version));
                if (buffer.hasRemaining()) wrong.add(type.name + " v" + version + ": " + buffer.remaining() + " bytes too many");
                else if (!again.equals(parts[2])) wrong.add(type.name + " v" + version + ": ours " + parts[2] + ", theirs " + again);
            } catch (RuntimeException e) {
                wrong.add(type.name + " v" + version + ": " + e);
            }
        }
        StringBuilder json = new StringBuilder("{\"checked\":" + lines.size() + ",\"wrong\":[");
        for (int i = 0; i < wrong.size(); i++) {
            json.append(i == 0 ? "" : ",").append('"').append(wrong.get(i).replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ")).append('"');
        }
        System.out.println(json.append("]}"));
    }

    /** Gives every field a value of its own: counted numbers, so that two swapped fields show. */
    static class Filler {
        final boolean full;
        int next = 1;

        Filler(boolean full) {
            this.full = full;
        }

        Struct struct(Schema schema) {
            Struct struct = new Struct(schema);
            for (BoundField field : schema.fields()) struct.set(field, value(field.def.type));
            return struct;
        }

        Object value(Type type) {
            if (type instanceof Schema schema) return struct(schema);
            if (type instanceof TaggedFields tagged) return tags(tagged);
            if (type.isNullable() && !full) return null;
            if (type.isArray()) return array(type);
            return scalar(type);
        }

        Object array(Type type) {
            Object[] elements = new Object[full ? 2 : 0];
            for (int i = 0; i < elements.length; i++) elements[i] = value(type.arrayElementType().get());
            return elements;
        }

        NavigableMap<Integer, Object> tags(TaggedFields tagged) {
            NavigableMap<Integer, Object> values = new TreeMap<>();
            if (!full) return values;
            for (var field : tagged.fields().entrySet()) values.put(field.getKey(), value(((Field) field.getValue()).type));
            return values;
        }

        Object scalar(Type type) {
            int n = next++;
            if (type == Type.BOOLEAN) return full;
            if (type == Type.INT8) return (byte) (n % 100);
            if (type == Type.INT16) return (short) n;
            if (type == Type.UINT16) return n;
            if (type == Type.INT32) return n;
            if (type == Type.UNSIGNED_INT32) return (long) n;
            if (type == Type.INT64) return (long) n << 33;
            if (type == Type.FLOAT64) return n + 0.5;
            if (type == Type.UUID) return new Uuid(n, n);
            if (type.toString().contains("BYTES")) return bytes(n);
            if (type.toString().contains("STRING")) return full ? "text-" + n : "";
            if (type.toString().contains("RECORDS")) return records(n);
            throw new IllegalArgumentException("a field of type " + type.toString());
        }

        ByteBuffer bytes(int n) {
            return ByteBuffer.wrap(full ? ("bytes-" + n).getBytes(StandardCharsets.UTF_8) : new byte[0]);
        }

        MemoryRecords records(int n) {
            byte[] value = ("record-" + n).getBytes(StandardCharsets.UTF_8);
            return MemoryRecords.withRecords(Compression.NONE, new SimpleRecord(1_700_000_000_000L + n, null, value));
        }
    }
}
