// Opens the page of a server that asks for a token: a wrong one is asked for again, with a right one everything works, and
// the token lies nowhere but in the tab.
//     access.js BASE_URL TOKEN DOWNLOADS SCREENSHOT.png   →   {"mistakes": [...], "seen": {what: text}}
'use strict'
const fs = require('fs')
const path = require('path')
const { chromium } = require('playwright-core')

const [base, token, downloads, screenshot] = process.argv.slice(2)

async function main() {
  const mistakes = []
  const seen = {}
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
  try {
    const page = await (await browser.newContext({ acceptDownloads: true, viewport: { width: 1400, height: 1000 } })).newPage()
    // A refused request is an error to the console; which ones are, is checked below.
    page.on('console', (message) => message.type() === 'error' && !message.text().includes('401') && !message.text().includes('403') && mistakes.push(`console: ${message.text()}`))
    page.on('pageerror', (error) => mistakes.push(`page: ${error.message}`))
    page.on('request', (request) => request.url().includes(token) && mistakes.push(`the token is part of an address: ${request.url()}`))
    const shows = async (name, selector, text) => {
      await page.waitForFunction(([selector, text]) => document.querySelector(selector)?.textContent.includes(text), [selector, text], { timeout: 20000 })
      seen[name] = await page.locator(selector).first().textContent()
    }

    await page.goto(`${base}/d/orders`)
    await page.waitForSelector('dialog.token[open] input', { timeout: 20000 })
    await page.screenshot({ path: screenshot })
    await page.fill('dialog.token input', 'not-the-token')
    await page.press('dialog.token input', 'Enter')
    await page.waitForFunction(() => document.querySelector('dialog.token[open] input')?.value === '', null, { timeout: 20000 })
    if (await page.locator('dialog.token').count() !== 1) mistakes.push('it is asked for more than once at a time')
    await page.fill('dialog.token input', token)
    await page.press('dialog.token input', 'Enter')
    await shows('dashboard', 'section.panel', 'FR')
    await page.waitForFunction(() => document.getElementById('link').dataset.state === 'live', null, { timeout: 20000 })
    if (await page.locator('dialog.token').count() !== 0) mistakes.push('the dialog stays')

    const saved = async (name, act) => {
      const [download] = await Promise.all([page.waitForEvent('download', { timeout: 20000 }), act()])
      const file = path.join(downloads, download.suggestedFilename())
      await download.saveAs(file)
      if (!/^orders|^millpond/.test(download.suggestedFilename())) mistakes.push(`${name} is called ${download.suggestedFilename()}`)
      seen[name] = fs.readFileSync(file, 'latin1')
    }
    await page.locator('.head .acts details summary').click()
    await saved('csv of the dashboard', () => page.locator('.head .acts a[download]', { hasText: 'CSV' }).click())

    await page.goto(`${base}/sql?q=${encodeURIComponent('SELECT * FROM orders')}`)
    await shows('sql', '.result', 'FR')
    await saved('csv of sql', () => page.locator('.run button', { hasText: 'CSV' }).click())
    await page.goto(`${base}/sql?q=${encodeURIComponent('SELECT country FROM by_country')}`)
    await shows('view', '.result', 'FR')

    // What sees everything says why it shows nothing.
    await page.goto(`${base}/alerts`)
    await page.waitForFunction(() => document.body.textContent.includes('lacks the scope'), null, { timeout: 20000 })
    const kept = await page.evaluate(() => ({ session: Object.values(sessionStorage), local: Object.values(localStorage), cookie: document.cookie }))
    if (!kept.session.includes(token)) mistakes.push('the token is not kept for the tab')
    if (JSON.stringify(kept.local).includes(token) || kept.cookie.includes(token)) mistakes.push('the token is kept beyond the tab')
    const other = await (await browser.newContext()).newPage()
    await other.goto(`${base}/d/orders`)
    await other.waitForSelector('dialog.token[open]', { timeout: 20000 })
    process.stdout.write(JSON.stringify({ mistakes, seen }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exitCode = 1 })
