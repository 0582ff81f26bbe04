//! The settings of the lake: destination, how topics settle, and the tables that SQL writes.

use super::schema::{Field, Kind};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// `[lake]`.
pub const LAKE: [Field; 23] = [
    Field::optional(
        "url",
        Kind::Text,
        "\"file:///var/lib/millpond/lake\"",
        "Where Parquet files go: a directory, as a path or file:// URL; on HDFS, as hdfs://NAMENODE:8020/DIRECTORY or hdfs://SERVICE/DIRECTORY; or in an object store, as s3://BUCKET/DIRECTORY, gs://BUCKET/DIRECTORY or az://CONTAINER/DIRECTORY. Without it: lake, below the data directory. For object stores the variables of the vendors are read (AWS_…, GOOGLE_…, AZURE_…), with the roles of instances where there are no keys.",
    ),
    Field::optional(
        "hdfs_user",
        Kind::Text,
        "\"millpond\"",
        "The user that owns the files on HDFS. Without it: HADOOP_USER_NAME, else the user of the process.",
    ),
    Field::optional(
        "hdfs_conf_dir",
        Kind::Text,
        "\"/etc/hadoop/conf\"",
        "The directory with Hadoop's core-site.xml and hdfs-site.xml, which say the name nodes of a service. Without it: HADOOP_CONF_DIR, else etc/hadoop below HADOOP_HOME, else none.",
    ),
    Field::optional(
        "hdfs_principal",
        Kind::Text,
        "\"millpond@EXAMPLE.COM\"",
        "Who Millpond is in Kerberos. With it HDFS is spoken to with Kerberos, whatever the Hadoop configuration says. Without it, where that says kerberos: the first name in the keytab or the cache of tickets.",
    ),
    Field::optional(
        "hdfs_keytab",
        Kind::Text,
        "\"/etc/millpond/millpond.keytab\"",
        "The file with the principal's keys, with which tickets are fetched and renewed. Without it: KRB5_CLIENT_KTNAME, else the tickets that KRB5CCNAME names, which somebody else must renew.",
    ),
    Field::with_default("hdfs_replication", Kind::Integer(1, 512), "2", "Copies that HDFS keeps of each block."),
    Field::optional(
        "cloud_endpoint",
        Kind::Text,
        "\"http://minio:9000\"",
        "Where the object store answers, where that is not the vendor's own place: what speaks like S3, or an emulator (for Azure with the account at its end). Without it: AWS_ENDPOINT_URL, AZURE_STORAGE_ENDPOINT or GOOGLE_BASE_URL.",
    ),
    Field::optional(
        "cloud_region",
        Kind::Text,
        "\"eu-central-1\"",
        "The region of the bucket in S3. Without it: AWS_REGION, else us-east-1.",
    ),
    Field::optional(
        "cloud_access_key",
        Kind::Text,
        "\"lake\"",
        "S3: the id of the key, without it AWS_ACCESS_KEY_ID. Azure: the account, without it AZURE_STORAGE_ACCOUNT_NAME.",
    ),
    Field::optional(
        "cloud_secret_key",
        Kind::Text,
        "\"secret\"",
        "S3: the secret key, without it AWS_SECRET_ACCESS_KEY. Azure: the account's key, without it AZURE_STORAGE_ACCOUNT_KEY. Better ${NAME} or ${file:PATH} than its text.",
    ),
    Field::optional(
        "cloud_credentials_file",
        Kind::Text,
        "\"/run/secrets/google.json\"",
        "Google: the file of a service account, or of gcloud's application-default login. Without it: GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS, else what gcloud's login left in the home directory, else the account of the instance.",
    ),
    Field::with_default(
        "cloud_path_style",
        Kind::Bool,
        "true",
        "S3: whether the bucket stands in the path of requests; false: in the name of the host.",
    ),
    Field::with_default(
        "cloud_allow_http",
        Kind::Bool,
        "false",
        "Whether an object store without TLS may be spoken to.",
    ),
    Field::with_default(
        "cloud_request_time_max",
        Kind::Duration(100, HOUR),
        "30s",
        "Longest wait for the answer of one request to an object store; parts of 8 MiB must go through in it. A request is not tried again after that time.",
    ),
    Field::with_default(
        "cloud_retries",
        Kind::Integer(0, 20),
        "3",
        "How often a request to an object store is tried again within that time, with pauses; what settles is tried again later and without end.",
    ),
    Field::with_default(
        "zones",
        Kind::Bool,
        "false",
        "Whether topics that name no zone of their own lie in the directory raw/.",
    ),
    Field::with_default("transform_time_max", Kind::Duration(1_000, 7 * DAY), "1h", "Longest run of one transform."),
    Field::with_default("sql_time_max", Kind::Duration(100, DAY), "30s", "Longest run of one SQL query."),
    Field::with_default(
        "sql_memory_bytes_max",
        Kind::Size(MIB, 1 << 40),
        "256MiB",
        "Most memory of SQL queries, all together; live rows that they decoded are kept in a quarter as much beside it.",
    ),
    Field::with_default("sql_rows_max", Kind::Integer(1, 10_000_000), "100000", "Most rows of one SQL answer."),
    Field::with_default(
        "iceberg",
        Kind::Bool,
        "false",
        "Whether readers find the lake's tables as Iceberg tables, too: below _iceberg in the lake, and at /iceberg on the HTTP port (docs/iceberg.md). Off: what there was of them is deleted at the start.",
    ),
    Field::with_default(
        "iceberg_keep",
        Kind::Duration(MINUTE, 365 * DAY),
        "1h",
        "How long a snapshot of an Iceberg table can be read after another took its place, a thousand of them at most. On a local disk what was merged meanwhile takes space for as long.",
    ),
    Field::optional(
        "tables",
        Kind::Tables(&LAKE_TABLE),
        "",
        "How topics with a stream settle as Parquet. One that is not listed settles by date, with the defaults below.",
    ),
];

const LAKE_TABLE: [Field; 16] = [
    Field::required("topic", Kind::Text, "\"listens\"", "The topic; a stream must be declared over it."),
    Field::optional(
        "stream",
        Kind::Text,
        "\"listens\"",
        "The stream whose columns the files have. Needed where several are declared over the topic: the others read the log alone.",
    ),
    Field::optional(
        "zone",
        Kind::Text,
        "\"raw\"",
        "The directory above the topic's. Without it: none, or raw when lake.zones is true.",
    ),
    Field::with_default(
        "slice",
        Kind::Texts,
        "date",
        "Directory levels: date, year/month/day (of the event time, UTC), or columns.",
    ),
    Field::with_default(
        "flush_rows",
        Kind::Integer(1, 100_000_000),
        "1000000",
        "Records of a partition that are enough for a file.",
    ),
    Field::with_default(
        "flush_bytes",
        Kind::Size(KIB, 16 * GIB),
        "64MiB",
        "Bytes of a partition's log that are enough for a file.",
    ),
    Field::with_default("flush_age", Kind::Duration(100, 30 * DAY), "1m", "Oldest record that may wait for its file."),
    Field::optional(
        "archive_after",
        Kind::Duration(MINUTE, 36_500 * DAY),
        "\"30d\"",
        "Age of its youngest event at which a slice moves to the directory archive/ (when a job archives).",
    ),
    Field::optional(
        "expire_after",
        Kind::Duration(MINUTE, 36_500 * DAY),
        "\"730d\"",
        "Age at which an archived slice is deleted; it is then gone from SQL too.",
    ),
    Field::with_default(
        "merge",
        Kind::Bool,
        "true",
        "Whether small files that are neighbours in a slice become one. While one merge takes their place, readers that list directories meet their rows twice for moments; readers of tables never do.",
    ),
    Field::with_default("merge_below", Kind::Size(KIB, 16 * GIB), "16MiB", "Files that are smaller are merged."),
    Field::with_default(
        "merge_to",
        Kind::Size(KIB, 16 * GIB),
        "128MiB",
        "Bytes of files that become one file, at most.",
    ),
    Field::with_default(
        "merge_files",
        Kind::Integer(2, 1_000),
        "8",
        "Neighbours that are worth a merge. In a slice that got nothing for an hour, two are.",
    ),
    Field::with_default(
        "raw",
        Kind::Bool,
        "false",
        "Whether its whole records are kept too, below _raw/. With remote.storage.enable on the topic, consumers are served from there what the log let go.",
    ),
    Field::optional("owner", Kind::Text, "\"data team\"", "Who answers for it; shown in the catalog."),
    Field::optional(
        "description",
        Kind::Text,
        "\"Listens, as they were sent\"",
        "What it holds; shown in the catalog.",
    ),
];

/// `[[transforms]]`.
pub const TRANSFORM: [Field; 7] = [
    Field::required("name", Kind::Text, "\"fact_plays\"", "The table's name in SQL and of its directory."),
    Field::with_default("zone", Kind::Text, "processed", "The directory above the table's."),
    Field::optional(
        "slice",
        Kind::Texts,
        "[\"date\"]",
        "Columns of the result that are directory levels, outermost first; year/month/day stands for three.",
    ),
    Field::optional(
        "sort",
        Kind::Texts,
        "[\"user_id\", \"event\"]",
        "Columns by which the rows of a file are sorted: a filter on the first reads few row groups.",
    ),
    Field::with_default(
        "mode",
        Kind::OneOf(&["replace", "replace_slices", "append", "scd2"]),
        "replace",
        "What a run does to what is there. replace: takes its place. replace_slices: takes the place of the slices that the result touches or the parameters name (day, from and to, or a slice column). append: adds; a second run with the same parameters takes the place of the first. scd2: keeps the history of rows by key, with valid_from, valid_to and is_current.",
    ),
    Field::optional("key", Kind::Texts, "[\"user_id\"]", "The columns that tell rows apart, for scd2."),
    Field::required(
        "sql",
        Kind::Text,
        "\"WITH days AS (SELECT CAST(ts AS DATE) AS date, user_id, event FROM listens) SELECT * FROM days WHERE date = $day\"",
        "The query; $day, $from and so on stand for the texts that a run is given.",
    ),
];
