// Opens the page in headless Chromium and compares what it shows with what the API says, before and after more events came.
//     page.js BASE_URL SCREENSHOT.png   →   {"mistakes": [...], "charts": n, "numbers": [[panel, shown, api]]}
'use strict'
const { launch, watch, agreement } = require('./browser.js')

const [base, screenshot] = process.argv.slice(2)
// Of each kind: more than can leave the range while the test runs, so that every figure must grow.
const MORE = 400

const whole = (value) => new Intl.NumberFormat('en', { maximumFractionDigits: 0 }).format(value)

async function figures(page, dashboard, mistakes) {
  const found = []
  for (const [number, panel] of dashboard.panels.entries()) {
    if (panel.kind !== 'number' || !panel.view) continue
    const api = async () => whole((await (await fetch(`${base}/v1/dashboards/music/panels/${number}`)).json()).rows[0][0])
    const shown = () => page.locator(`section.panel[aria-label="${panel.title}"] .figure span`).textContent()
    const look = await agreement({ api, shown, refreshMs: dashboard.refresh_ms })
    found.push([panel.title, look.shown, look.after])
    if (!look.agreed) mistakes.push(`${panel.title}: the page shows ${look.shown}, the API says ${look.before} and ${look.after}`)
    if (!/[1-9]/.test(look.shown)) mistakes.push(`${panel.title}: the page shows ${look.shown}, which proves nothing`)
  }
  return found
}

async function sendMore() {
  const event = (kind) => ({ user_id: 7, ts: new Date().toISOString(), event: kind, title: 'Rain', artist: 'Amara', genre: 'r&b', duration_ms: 1000, platform: 'web', device: 'desktop', country: 'FR' })
  const records = ['listen', 'like', 'share'].flatMap((kind) => Array.from({ length: MORE }, () => ({ key: '7', value: event(kind) })))
  const answer = await fetch(`${base}/v1/topics/listens/records`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ records }) })
  if (!answer.ok) throw new Error(`the collector answered ${answer.status}: ${await answer.text()}`)
}

async function main() {
  const mistakes = []
  const browser = await launch()
  try {
    const page = await browser.newPage({ viewport: { width: 1400, height: 1200 } })
    watch(page, base, (text) => mistakes.push(text))
    await page.goto(`${base}/d/music`)
    await page.waitForSelector('section.panel[data-kind=number] .figure span', { timeout: 20000 })
    await page.waitForFunction(() => document.querySelectorAll('section.panel canvas').length >= 4, null, { timeout: 20000 })
    const charts = await page.evaluate(() => [...document.querySelectorAll('section.panel canvas')].filter((canvas) => {
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
      return canvas.width > 50 && pixels.some((value) => value !== 0)
    }).length)

    const dashboard = await (await fetch(`${base}/v1/dashboards/music?data=false`)).json()
    const first = await figures(page, dashboard, mistakes)
    await page.screenshot({ path: screenshot })
    await sendMore()
    const numbers = await figures(page, dashboard, mistakes)
    const figure = (text) => Number(text.replaceAll(',', ''))
    for (const [i, [title, shown]] of numbers.entries()) {
      if (!(figure(shown) > figure(first[i][1]))) mistakes.push(`${title}: the page showed ${first[i][1]}, and after ${MORE} more it shows ${shown}`)
    }
    process.stdout.write(JSON.stringify({ mistakes, charts, numbers }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n`); process.exitCode = 1 })
