// kafkajs with logins and certificates; see login.py for SPEC and the report.
'use strict'
const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')

async function main() {
  const spec = JSON.parse(fs.readFileSync(process.argv[2]))
  const pem = (name) => (spec[name] ? fs.readFileSync(spec[name], 'utf8') : undefined)
  const kafka = new Kafka({
    clientId: 'kafkajs-login', brokers: [spec.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 2 },
    ssl: { ca: [fs.readFileSync(spec.ca, 'utf8')], cert: pem('cert'), key: pem('key') },
    sasl: spec.user ? { mechanism: spec.mechanism.toLowerCase(), username: spec.user, password: spec.password } : undefined,
  })
  const producer = kafka.producer({ allowAutoTopicCreation: false })
  const consumer = kafka.consumer({ groupId: spec.group, sessionTimeout: 10000 })
  const read = []
  try {
    await producer.connect()
    await producer.send({ topic: spec.topic, messages: spec.values.map((value) => ({ value })) })
    await producer.disconnect()
    await consumer.connect()
    await consumer.subscribe({ topic: spec.topic, fromBeginning: true })
    await new Promise((resolve, reject) => {
      setTimeout(resolve, 30000)
      consumer.on(consumer.events.CRASH, (event) => reject(event.payload.error))
      consumer.run({ eachMessage: async ({ message }) => {
        read.push(message.value.toString())
        if (read.length >= spec.values.length) resolve()
      } }).catch(reject)
    })
    await consumer.disconnect()
    report({ read, throttle_ms: 0, client: 'kafkajs ' + require('kafkajs/package.json').version })
  } catch (error) {
    report({ refused: `${error.name}: ${error.message}` })
  }
}

function report(value) {
  process.stdout.write(JSON.stringify(value) + '\n', () => process.exit(0))
}

main()
