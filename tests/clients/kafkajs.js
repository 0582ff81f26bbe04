// kafkajs under the suite's contract; see script.py.
'use strict'
const fs = require('fs')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs')
const lz4 = require('lz4-napi')
const zstd = require('@bokuweb/zstd-wasm')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
})
const zstdReady = zstd.init()
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => (await zstdReady, Buffer.from(zstd.compress(encoder.buffer))),
  decompress: async (buffer) => (await zstdReady, Buffer.from(zstd.decompress(buffer))),
})
const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
const DEADLINE_MS = 60000

const unhex = (text) => (text === null ? null : Buffer.from(text, 'hex'))
const tohex = (data) => (data === null || data === undefined ? null : Buffer.from(data).toString('hex'))
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const headersIn = (pairs) => pairs.reduce((all, [name, value]) => {
  const bytes = unhex(value)
  all[name] = name in all ? [].concat(all[name], bytes) : bytes
  return all
}, {})
const headersOut = (headers) => Object.entries(headers || {}).flatMap(([name, value]) => [].concat(value).map((one) => [name, tohex(one)]))

function client(bootstrap) {
  return new Kafka({ clientId: 'kafkajs-test', brokers: [bootstrap], logLevel: logLevel.ERROR,
    logCreator: () => ({ label, log }) => process.stderr.write(`${label} ${log.message} ${log.error || ''}\n`) })
}

async function produce(bootstrap, sends) {
  const producer = client(bootstrap).producer({ idempotent: true, maxInFlightRequests: 1, allowAutoTopicCreation: false })
  await producer.connect()
  const sent = []
  for (const send of sends) {
    const messages = send.records.map((r) => ({ key: unhex(r.key), value: unhex(r.value), headers: headersIn(r.headers), timestamp: String(r.timestamp), partition: send.partition }))
    const [answer] = await producer.send({ topic: send.topic, acks: -1, compression: CODECS[send.codec], messages })
    sent.push({ topic: send.topic, partition: send.partition, offsets: messages.map((_, i) => Number(answer.baseOffset) + i) })
  }
  await producer.disconnect()
  return sent
}

async function consume(bootstrap, topics) {
  const consumer = client(bootstrap).consumer({ groupId: `kafkajs-${process.hrtime.bigint()}` })
  const records = Object.fromEntries(topics.map((t) => [t.topic, []]))
  const wanted = topics.reduce((sum, t) => sum + t.count, 0)
  await consumer.connect()
  await consumer.subscribe({ topics: topics.map((t) => t.topic), fromBeginning: true })
  await new Promise((resolve, reject) => {
    let count = 0
    setTimeout(resolve, DEADLINE_MS)
    consumer.on(consumer.events.CRASH, (event) => reject(event.payload.error))
    consumer.run({ autoCommit: false, eachMessage: async ({ topic, partition, message: m }) => {
      records[topic].push([partition, Number(m.offset), Number(m.timestamp), tohex(m.key), tohex(m.value), headersOut(m.headers)])
      if (++count >= wanted) resolve()
    } }).catch(reject)
  })
  await consumer.disconnect()
  return records
}

async function group(bootstrap, topic, groupId) {
  const consumer = client(bootstrap).consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 500 })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => say({ assigned: (payload.memberAssignment[topic] || []).sort() }))
  consumer.on(consumer.events.REBALANCING, () => say({ assigned: [] }))
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const leave = new Promise((resolve) => {
    process.stdin.on('data', (data) => String(data).includes('leave') && resolve())
    process.stdin.on('end', resolve)
  })
  await consumer.run({ autoCommitThreshold: 1, eachBatchAutoResolve: true, eachBatch: async ({ batch, resolveOffset, commitOffsetsIfNecessary }) => {
    const read = batch.messages.map((m) => [batch.partition, Number(m.offset)])
    if (read.length) {
      say({ records: read })
      resolveOffset(batch.lastOffset())
      await commitOffsetsIfNecessary()
    }
  } })
  await leave
  await consumer.disconnect()
  say({ left: true })
}

async function main() {
  const [mode, bootstrap, first, second] = process.argv.slice(2)
  const name = 'kafkajs ' + require('kafkajs/package.json').version
  if (mode === 'produce') say({ client: name, sent: await produce(bootstrap, JSON.parse(fs.readFileSync(first)).sends) })
  else if (mode === 'consume') say({ client: name, records: await consume(bootstrap, JSON.parse(fs.readFileSync(first)).topics) })
  else if (mode === 'group') await group(bootstrap, first, second)
  else throw new Error(`unknown mode ${mode}`)
  process.stdout.write('', () => process.exit(0))
}

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
main().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exit(1) })
