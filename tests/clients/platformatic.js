// @platformatic/kafka under the suite's contract; see script.py, and login.py for SPEC and its report.
//     platformatic.js produce|consume BOOTSTRAP PLAN.json
//     platformatic.js group BOOTSTRAP TOPIC GROUP          (MEMBER_PROTOCOL=consumer: KIP-848, MEMBER_INSTANCE: static)
//     platformatic.js transact BOOTSTRAP TOPIC             {"committed": [values that a read_committed reader sees]}
//     platformatic.js admin BOOTSTRAP TOPIC                {"partitions", "retention", "listed", "gone"}
//     platformatic.js login SPEC.json
'use strict'
const fs = require('fs')
const { Admin, Consumer, Producer, ConfigResourceTypes, GroupProtocols, IncrementalAlterConfigOperationTypes } = require('@platformatic/kafka')

const DEADLINE_MS = 60000
const unhex = (text) => (text === null ? undefined : Buffer.from(text, 'hex'))
const tohex = (data) => (data === null || data === undefined ? null : Buffer.from(data).toString('hex'))
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const load = (file) => JSON.parse(fs.readFileSync(file))
const client = (bootstrap) => ({ clientId: 'platformatic-test', bootstrapBrokers: [bootstrap], retries: 5, retryDelay: 250 })
// a header may be there twice: each is a key object of its own
const headersIn = (pairs) => new Map(pairs.map(([name, value]) => [Buffer.from(name), unhex(value)]))
const headersOut = (entries) => entries.map(([name, value]) => [name.toString(), tohex(value)])

async function produce(bootstrap, sends) {
  const producer = new Producer({ ...client(bootstrap), idempotent: true })
  const sent = []
  for (const { topic, partition, codec, records } of sends) {
    const messages = records.map((r) => ({ topic, partition, key: unhex(r.key), value: unhex(r.value), headers: headersIn(r.headers), timestamp: BigInt(r.timestamp) }))
    const { offsets } = await producer.send({ acks: -1, compression: codec, messages })
    sent.push({ topic, partition, offsets: messages.map((_, i) => Number(offsets[0].offset) + i) })
  }
  await producer.close()
  return sent
}

// Hands each message of a stream to `take`, which says when it has enough.
async function read(stream, take) {
  await new Promise((resolve, reject) => {
    setTimeout(resolve, DEADLINE_MS).unref()
    stream.on('data', (message) => { if (take(message)) resolve() })
    stream.on('error', reject)
  })
}

async function consume(bootstrap, topics) {
  const consumer = new Consumer({ ...client(bootstrap), groupId: `platformatic-${process.hrtime.bigint()}` })
  const records = Object.fromEntries(topics.map((t) => [t.topic, []]))
  let left = topics.reduce((sum, t) => sum + t.count, 0)
  const stream = await consumer.consume({ topics: topics.map((t) => t.topic), mode: 'earliest', autocommit: false, maxWaitTime: 100 })
  await read(stream, (m) => {
    records[m.topic].push([m.partition, Number(m.offset), Number(m.timestamp), tohex(m.key), tohex(m.value), headersOut(m.headerEntries)])
    return --left === 0
  })
  await consumer.close(true)
  return records
}

const askedToLeave = () => new Promise((resolve) => {
  process.stdin.on('data', (data) => String(data).includes('leave') && resolve())
  process.stdin.on('end', resolve)
})

async function group(bootstrap, topic, groupId) {
  const consumer = process.env.MEMBER_PROTOCOL === 'consumer'
  const kind = consumer ? { groupProtocol: GroupProtocols.CONSUMER } : { sessionTimeout: 10000, heartbeatInterval: 500 }
  const member = new Consumer({ ...client(bootstrap), ...kind, groupId, groupInstanceId: process.env.MEMBER_INSTANCE, retries: 60 })
  let told
  const assigned = () => {
    const now = (member.assignments ?? []).filter((one) => one.topic === topic).flatMap((one) => one.partitions).sort()
    if (JSON.stringify(now) !== told) say({ assigned: now })
    told = JSON.stringify(now)
  }
  // with KIP-848 partitions come and go between heartbeats, and no event tells of it
  if (consumer) setInterval(assigned, 100)
  member.on('consumer:group:join', assigned)
  member.on('consumer:group:rebalance', () => { if (!consumer) say({ assigned: (told = []) }) })
  const stream = await member.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false, maxWaitTime: 100 })
  stream.on('data', async (message) => {
    say({ records: [[message.partition, Number(message.offset)]] })
    // a commit that comes as the group turns is refused; who has the partition next reads from the last one
    try { await message.commit() } catch (error) { process.stderr.write(`${error.message}\n`) }
  })
  stream.on('error', (error) => process.stderr.write(`${error.stack}\n`))
  await askedToLeave()
  await member.close(true)
  say({ left: true })
}

async function transact(bootstrap, topic) {
  const producer = new Producer({ ...client(bootstrap), idempotent: true, transactionalId: `platformatic-${topic}` })
  for (const [value, commit] of [['first', true], ['dropped', false], ['second', true]]) {
    const transaction = await producer.beginTransaction()
    await transaction.send({ acks: -1, messages: [{ topic, partition: 0, value: Buffer.from(value) }] })
    await (commit ? transaction.commit() : transaction.abort())
  }
  await producer.close()
  const consumer = new Consumer({ ...client(bootstrap), groupId: `platformatic-${process.hrtime.bigint()}`, isolationLevel: 1 })
  const committed = []
  const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false, isolationLevel: 1, maxWaitTime: 100 })
  await read(stream, (message) => committed.push(message.value.toString()) === 2)
  await consumer.close(true)
  return committed
}

async function administer(bootstrap, topic) {
  const admin = new Admin(client(bootstrap))
  const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }
  await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 })
  const edit = { name: 'retention.ms', configOperation: IncrementalAlterConfigOperationTypes.SET, value: '123456789' }
  await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs: [edit] }], validateOnly: false })
  const [{ configs }] = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: ['retention.ms'] }] })
  await admin.createPartitions({ topics: [{ name: topic, count: 5, assignments: null }] })
  const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
  const listed = (await admin.listTopics()).includes(topic)
  await admin.deleteTopics({ topics: [topic] })
  const gone = !(await admin.listTopics()).includes(topic)
  await admin.close()
  return { partitions: topics.get(topic).partitionsCount, retention: configs[0].value, listed, gone }
}

async function login(spec) {
  const pem = (name) => (spec[name] ? fs.readFileSync(spec[name], 'utf8') : undefined)
  const sasl = spec.user ? { mechanism: spec.mechanism, username: spec.user, password: spec.password } : undefined
  const options = { ...client(spec.bootstrap), retries: 2, tls: { ca: [pem('ca')], cert: pem('cert'), key: pem('key') }, sasl }
  const values = []
  try {
    const producer = new Producer(options)
    await producer.send({ acks: -1, messages: spec.values.map((value) => ({ topic: spec.topic, value: Buffer.from(value) })) })
    await producer.close()
    const consumer = new Consumer({ ...options, groupId: spec.group })
    const stream = await consumer.consume({ topics: [spec.topic], mode: 'earliest', autocommit: false, maxWaitTime: 100 })
    await read(stream, (message) => values.push(message.value.toString()) === spec.values.length)
    await consumer.close(true)
    return { read: values, throttle_ms: 0 }
  } catch (error) {
    return { refused: causes(error) }
  }
}

// What it says, with what each of its causes says.
const causes = (error) => [error.message, ...[error.cause, ...(error.errors ?? [])].filter(Boolean).map(causes)].join(': ')

async function main() {
  const [mode, where, first, second] = process.argv.slice(2)
  const name = `@platformatic/kafka ${load(require.resolve('@platformatic/kafka').replace(/dist.*/, 'package.json')).version}`
  if (mode === 'produce') say({ client: name, sent: await produce(where, load(first).sends) })
  else if (mode === 'consume') say({ client: name, records: await consume(where, load(first).topics) })
  else if (mode === 'group') await group(where, first, second)
  else if (mode === 'transact') say({ committed: await transact(where, first) })
  else if (mode === 'admin') say(await administer(where, first))
  else if (mode === 'login') say({ ...(await login(load(where))), client: name })
  else throw new Error(`unknown mode ${mode}`)
  process.stdout.write('', () => process.exit(0))
}

main().catch((error) => { process.stderr.write(`${causes(error)}\n${error.stack}\n`); process.exit(1) })
