// Opens every dashboard of a running server in headless Chromium, at phone and desktop width: no errors in the console, nothing from
// elsewhere, no sideways scrolling, no panel in trouble, and every number equal to the API's.
//     systems.js BASE_URL FOLDER   →   {"mistakes": [...], "pages": n, "numbers": n, "panels": n}
'use strict'
const fs = require('fs')
const path = require('path')
const { launch, watch, agreement } = require('./browser.js')

const [base, folder] = process.argv.slice(2)
const SIZES = [{ width: 1440, height: 1000 }, { width: 360, height: 760 }]
const mistakes = []
let pages = 0, numbers = 0, panels = 0

const json = async (where) => (await fetch(`${base}${where}`)).json()
const figure = (text) => (text ?? '').replace(/[^0-9.]/g, '')

// A number is shown with all its whole digits up to six of them; a sum of fractions that is whole when this looks first may have a
// fraction at the next look. Events flow while this looks, and the page is behind the API by the time between two of its looks, so a
// little apart will do here; tests/page.rs and tests/dashboards.rs compare to the digit.
async function compare(page, name, { dashboard, refreshMs }, number, panel) {
  const api = async () => (await json(`/v1/dashboards/${dashboard}/panels/${number}`)).rows?.[0]?.[0]
  const first = await api()
  if (!Number.isInteger(first) || first >= 100000) return
  const place = page.locator(`section.panel[aria-label="${panel.title}"] .figure span`).first()
  const shown = async () => figure(await place.textContent({ timeout: 10000 }).catch(() => ''))
  const agree = (text, answer) => text !== '' && Math.abs(Number(text) - answer) <= 5 + Math.ceil(0.005 * answer)
  const look = await agreement({ api, shown, refreshMs, agree })
  numbers += 1
  if (!look.agreed) mistakes.push(`${name}: ${panel.title}: the page shows ${look.shown}, the API says ${look.before} and ${look.after}`)
}

async function visit(browser, dashboard, size) {
  const name = `${dashboard} at ${size.width} px`
  const page = await browser.newPage({ viewport: size, locale: 'en-US', timezoneId: 'UTC' })
  watch(page, base, (text) => mistakes.push(`${name}: ${text}`))
  await page.goto(`${base}/d/${dashboard}`)
  const { panels: described, refresh_ms: refreshMs } = await json(`/v1/dashboards/${dashboard}`)
  await page.waitForFunction((count) => document.querySelectorAll('section.panel').length === count, described.length, { timeout: 20000 }).catch(() => mistakes.push(`${name}: not all ${described.length} panels came`))
  await page.waitForTimeout(1500)
  for (const [number, panel] of described.entries()) {
    panels += 1
    if (panel.problem) mistakes.push(`${name}: ${panel.title}: ${panel.problem.detail}`)
    if (panel.kind === 'number' && !panel.compare) await compare(page, name, { dashboard, refreshMs }, number, panel)
  }
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  if (over > 0) mistakes.push(`${name}: scrolls sideways by ${over} px`)
  await page.screenshot({ path: path.join(folder, `${dashboard}-${size.width}.png`), fullPage: true })
  await page.close()
  pages += 1
}

async function main() {
  fs.mkdirSync(folder, { recursive: true })
  const browser = await launch()
  try {
    const { dashboards } = await json('/v1/dashboards')
    for (const { name } of dashboards) for (const size of SIZES) await visit(browser, name, size)
    process.stdout.write(JSON.stringify({ mistakes, pages, numbers, panels }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exitCode = 1 })
