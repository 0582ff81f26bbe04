// What the scripts share that look at pages in headless Chromium.
'use strict'
const { chromium } = require('playwright-core')

// Longest wait for a figure that only has to be read again, over the page's own time between two looks.
const PATIENCE_MS = 15000
const PAUSE_MS = 250

const pause = (ms) => new Promise((done) => setTimeout(done, ms))

const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })

// Notes what no page may do: complain in its console, fail, be refused, or fetch anything from elsewhere.
function watch(page, base, wrong) {
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && wrong(`console: ${message.text()}`))
  page.on('pageerror', (error) => wrong(`page: ${error.message}`))
  page.on('requestfailed', (request) => request.failure().errorText !== 'net::ERR_ABORTED' && wrong(`failed: ${request.url()} ${request.failure().errorText}`))
  page.on('response', (response) => response.status() >= 400 && wrong(`${response.status()}: ${response.url()}`))
  page.on('request', (request) => !request.url().startsWith(base) && !/^(data|blob):/.test(request.url()) && wrong(`fetched from elsewhere: ${request.url()}`))
}

// What the page shows and what the API says, read together again and again until they agree: a range that ends now moves on with the
// clock, and the page looks again only from time to time. Within one attempt the API is asked before and after the page is read.
// Gives {shown, before, after, agreed}; a page that does not follow never agrees.
async function agreement({ api, shown, refreshMs = 0, agree = (text, answer) => text === answer }) {
  const until = Date.now() + 2 * refreshMs + PATIENCE_MS
  for (;;) {
    const before = await api()
    const text = await shown()
    const after = await api()
    const agreed = agree(text, before) || agree(text, after)
    if (agreed || Date.now() > until) return { shown: text, before, after, agreed }
    await pause(PAUSE_MS)
  }
}

module.exports = { launch, watch, agreement, pause }
