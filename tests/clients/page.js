// Opens the page in headless Chromium and compares what it shows with what the API says.
//     page.js BASE_URL SCREENSHOT.png   →   {"mistakes": [...], "charts": n, "numbers": [[panel, shown, api]]}
'use strict'
const { chromium } = require('playwright-core')

const [base, screenshot] = process.argv.slice(2)

async function main() {
  const mistakes = []
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
  try {
    const page = await browser.newPage({ viewport: { width: 1400, height: 1200 } })
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && mistakes.push(`console: ${message.text()}`))
    page.on('pageerror', (error) => mistakes.push(`page: ${error.message}`))
    page.on('requestfailed', (request) => request.failure().errorText !== 'net::ERR_ABORTED' && mistakes.push(`failed: ${request.url()} ${request.failure().errorText}`))
    page.on('response', (response) => response.status() >= 400 && mistakes.push(`${response.status()}: ${response.url()}`))
    page.on('request', (request) => !request.url().startsWith(base) && !request.url().startsWith('data:') && mistakes.push(`fetched from elsewhere: ${request.url()}`))
    await page.goto(`${base}/d/music`)
    await page.waitForSelector('section.panel[data-kind=number] .figure span', { timeout: 20000 })
    await page.waitForFunction(() => document.querySelectorAll('section.panel canvas').length >= 4, null, { timeout: 20000 })
    const charts = await page.evaluate(() => [...document.querySelectorAll('section.panel canvas')].filter((canvas) => {
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
      return canvas.width > 50 && pixels.some((value) => value !== 0)
    }).length)

    const dashboard = await (await fetch(`${base}/v1/dashboards/music`)).json()
    const numbers = []
    for (const [number, panel] of dashboard.panels.entries()) {
      if (panel.kind !== 'number') continue
      // The range moves on with the clock: read before and after, and what the page shows must be one of the two.
      const api = async () => {
        const data = await (await fetch(`${base}/v1/dashboards/music/panels/${number}`)).json()
        return new Intl.NumberFormat('en', { maximumFractionDigits: 0 }).format(data.rows[0][0])
      }
      const before = await api()
      const shown = await page.locator(`section.panel[aria-label="${panel.title}"] .figure span`).textContent()
      const after = await api()
      numbers.push([panel.title, shown, after])
      if (shown !== before && shown !== after) mistakes.push(`${panel.title}: the page shows ${shown}, the API says ${before} and ${after}`)
      if (!/[1-9]/.test(shown)) mistakes.push(`${panel.title}: the page shows ${shown}, which proves nothing`)
    }
    await page.screenshot({ path: screenshot })
    process.stdout.write(JSON.stringify({ mistakes, charts, numbers }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exitCode = 1 })
