// Opens every dashboard of a running server in headless Chromium, at phone and desktop width: no errors in the console, nothing from
// elsewhere, no sideways scrolling, no panel in trouble, and every number equal to the API's.
//     systems.js BASE_URL FOLDER   →   {"mistakes": [...], "pages": n, "numbers": n, "panels": n}
'use strict'
const fs = require('fs')
const path = require('path')
const { chromium } = require('playwright-core')

const [base, folder] = process.argv.slice(2)
const SIZES = [{ width: 1440, height: 1000 }, { width: 360, height: 760 }]
const mistakes = []
let pages = 0, numbers = 0, panels = 0

const json = async (where) => (await fetch(`${base}${where}`)).json()
const digits = (text) => (text ?? '').replace(/[^0-9]/g, '')

function watch(page, name) {
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && mistakes.push(`${name}: console: ${message.text()}`))
  page.on('pageerror', (error) => mistakes.push(`${name}: page: ${error.message}`))
  page.on('response', (response) => response.status() >= 400 && mistakes.push(`${name}: ${response.status()}: ${response.url()}`))
  page.on('request', (request) => !request.url().startsWith(base) && !/^(data|blob):/.test(request.url()) && mistakes.push(`${name}: fetched from elsewhere: ${request.url()}`))
}

// A whole number is shown with all its digits up to six of them. Rolling ranges move on between two refreshes of the page, so a little
// apart will do here; tests/page.rs and tests/dashboards.rs compare to the digit.
async function compare(page, name, dashboard, number, panel) {
  const api = async () => (await json(`/v1/dashboards/${dashboard}/panels/${number}`)).rows?.[0]?.[0]
  const before = await api()
  if (!Number.isInteger(before) || before >= 100000) return
  const shown = digits(await page.locator(`section.panel[aria-label="${panel.title}"] .figure span`).first().textContent({ timeout: 10000 }).catch(() => ''))
  const after = await api()
  numbers += 1
  const room = 5 + Math.ceil(0.02 * Math.max(before, after))
  if (shown === '' || Number(shown) < Math.min(before, after) - room || Number(shown) > Math.max(before, after) + room) mistakes.push(`${name}: ${panel.title}: the page shows ${shown}, the API says ${before} and ${after}`)
}

async function visit(browser, dashboard, size) {
  const name = `${dashboard} at ${size.width} px`
  const page = await browser.newPage({ viewport: size, locale: 'en-US', timezoneId: 'UTC' })
  watch(page, name)
  await page.goto(`${base}/d/${dashboard}`)
  const { panels: described } = await json(`/v1/dashboards/${dashboard}`)
  await page.waitForFunction((count) => document.querySelectorAll('section.panel').length === count, described.length, { timeout: 20000 }).catch(() => mistakes.push(`${name}: not all ${described.length} panels came`))
  await page.waitForTimeout(1500)
  for (const [number, panel] of described.entries()) {
    panels += 1
    if (panel.problem) mistakes.push(`${name}: ${panel.title}: ${panel.problem.detail}`)
    if (panel.kind === 'number' && !panel.compare) await compare(page, name, dashboard, number, panel)
  }
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  if (over > 0) mistakes.push(`${name}: scrolls sideways by ${over} px`)
  await page.screenshot({ path: path.join(folder, `${dashboard}-${size.width}.png`), fullPage: true })
  await page.close()
  pages += 1
}

async function main() {
  fs.mkdirSync(folder, { recursive: true })
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
  try {
    const { dashboards } = await json('/v1/dashboards')
    for (const { name } of dashboards) for (const size of SIZES) await visit(browser, name, size)
    process.stdout.write(JSON.stringify({ mistakes, pages, numbers, panels }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exitCode = 1 })
