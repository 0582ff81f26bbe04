// Opens the freelance system's dashboards in headless Chromium and compares every figure, table cell and drawn point with what an independent
// computation over the raw files expects.
//     freelance.js BASE_URL PAGES.json FOLDER   →   {"mistakes": [...], "pages": n, "panels": n, "points": n}
'use strict'
const fs = require('fs')
const path = require('path')
const { chromium } = require('playwright-core')

const [base, plan, folder] = process.argv.slice(2)
const expected = JSON.parse(fs.readFileSync(plan, 'utf8'))
const mistakes = []
let panels = 0, points = 0

const isDay = (value) => typeof value === 'string' && /^\d{4}-\d\d-\d\d$/.test(value)
const isFigure = (value) => typeof value === 'number'

// Whether a text shows a value: figures by their digits as far as they are written out, days as the calendar writes them.
function shows(text, value) {
  if (value === null) return text === '–'
  if (isDay(value)) return text === new Intl.DateTimeFormat('en-US', { timeZone: 'UTC', year: 'numeric', month: 'short', day: 'numeric' }).format(new Date(`${value}T00:00:00Z`))
  if (!isFigure(value)) return text === String(value)
  const figure = text.replace(/[^\d.-]/g, '')
  const digits = (figure.split('.')[1] ?? '').length
  return figure !== '' && Math.abs(Number(figure) - value) <= 0.5 * 10 ** -digits + 1e-9
}

// What the page drew, read from its charts; figures and tables as text.
const drawn = (page) => page.evaluate(() => Object.fromEntries([...document.querySelectorAll('section.panel')].map((card) => {
  const place = card.querySelector('.chart')
  const chart = place && window.echarts.getInstanceByDom(place)
  const shown = { status: card.dataset.status ?? '', trouble: card.querySelector('.bad b')?.textContent ?? null }
  const value = (one) => (one !== null && typeof one === 'object' && !Array.isArray(one) ? one.value : one)
  if (chart) {
    const option = chart.getOption()
    const axis = ['yAxis', 'xAxis'].map((name) => option[name]?.[0]).find((one) => one?.type === 'category')
    shown.names = axis?.data?.map((name) => String(value(name)))
    shown.series = option.series.map((one) => ({ type: one.type, name: one.name, data: (one.data ?? []).map((p) => (p?.name !== undefined && one.type === 'pie' ? [p.name, p.value] : value(p))) }))
  }
  shown.figure = card.querySelector('.figure span')?.textContent
  shown.table = [...card.querySelectorAll('tbody tr')].map((row) => [...row.querySelectorAll('th, td')].map((cell) => cell.textContent))
  return [card.getAttribute('aria-label'), shown]
})))

// The rows that a chart draws, each [name or time, value, …].
function rowsOf(kind, shown) {
  const series = shown.series ?? []
  if (kind === 'pie') return series[0].data
  if (kind === 'gauge') return [[series.find((one) => one.data.length === 1)?.data[0]]]
  if (kind === 'bar') return shown.names.map((name, i) => [name, ...series.map((one) => one.data[i])])
  return series[0].data.map(([x, y]) => [new Date(shown.names ? Number(shown.names[x]) : x).toISOString().slice(0, 10), y])
}

function compare(what, { kind, rows, status }, shown) {
  panels += 1
  const wrong = (text) => mistakes.push(`${what}: ${text}`)
  if (!shown) return wrong('is not on the page')
  if (shown.trouble) return wrong(shown.trouble)
  if (status !== null && shown.status !== status) wrong(`stands ${shown.status}, must be ${status}`)
  // the first column that is a rule's, not the figure's, is not written out
  const figure = rows[0]?.at(-1) ?? null
  if (kind === 'number') { points += 1; return shows(shown.figure ?? '', figure) || wrong(`shows ${shown.figure}, must be ${figure}`) }
  if (!rows.length) return shown.series && wrong('draws something of nothing')
  const drawn = kind === 'table' ? shown.table : rowsOf(kind, shown)
  if (kind === 'line' ? drawn.length < rows.length : drawn.length !== rows.length) wrong(`has ${drawn.length} rows, must have ${rows.length}`)
  const byDay = new Map(drawn.map((row) => [row[0], row]))
  for (const [i, row] of rows.entries()) {
    const found = kind === 'line' ? byDay.get(row[0]) : drawn[i]
    points += row.length
    const same = found && row.every((value, k) => (kind === 'table' ? shows(found[k], value) : isFigure(value) ? Math.abs(Number(found[k]) - value) < 1e-6 * Math.max(1, Math.abs(value)) : String(found[k]) === String(value)))
    if (!same) return wrong(`row ${i} is ${JSON.stringify(found)}, must be ${JSON.stringify(row)}`)
  }
  return true
}

function watch(page, name) {
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && mistakes.push(`${name}: console: ${message.text()}`))
  page.on('pageerror', (error) => mistakes.push(`${name}: page: ${error.message}`))
  page.on('response', (response) => response.status() >= 400 && mistakes.push(`${name}: ${response.status()}: ${response.url()}`))
}

async function visit(browser, { dashboard, query, panels: wanted }, number) {
  const name = `${dashboard}?${query}`
  const page = await browser.newPage({ viewport: { width: 1440, height: 1000 }, locale: 'en-US', timezoneId: 'UTC' })
  watch(page, name)
  await page.goto(`${base}/d/${dashboard}?${query}`)
  const done = () => document.querySelectorAll('section.panel').length > 0 && [...document.querySelectorAll('section.panel')].every((card) => !card.classList.contains('waiting') && !card.querySelector('.wait') && card.querySelector('.chart, .figure, table, .state'))
  await page.waitForFunction(done, null, { timeout: 60000 }).catch(() => mistakes.push(`${name}: not every panel came`))
  await page.waitForTimeout(700)
  const shown = await drawn(page)
  for (const [title, panel] of Object.entries(wanted)) compare(`${name}: ${title}`, panel, shown[title])
  if (dashboard === 'freelance-finance') {
    const ahead = shown['Forecast of the next three months']?.series?.find((one) => one.name === 'Forecast')
    if (query === '' && !(ahead?.data ?? []).some(([, value]) => value !== null)) mistakes.push(`${name}: no forecast is drawn`)
  }
  await page.screenshot({ path: path.join(folder, `freelance-${number}.png`), fullPage: true })
  await page.close()
}

// The System page: uptime against its target, the disk, PostgreSQL, and that one copy is kept where two are asked for.
async function system(browser) {
  const status = await (await fetch(`${base}/v1/status`)).json()
  const page = await browser.newPage({ viewport: { width: 1440, height: 1000 }, locale: 'en-US', timezoneId: 'UTC' })
  watch(page, 'system')
  await page.goto(`${base}/system`)
  await page.waitForSelector('.tile[aria-label="Uptime"]', { timeout: 20000 }).catch(() => {})
  const tile = async (name) => ({ text: await page.locator(`.tile[aria-label="${name}"] dd`).textContent({ timeout: 5000 }).catch(() => ''), status: await page.locator(`.tile[aria-label="${name}"]`).getAttribute('data-status', { timeout: 5000 }).catch(() => '') })
  const [uptime, disk, postgres] = [await tile('Uptime'), await tile('Disk free'), await tile('PostgreSQL')]
  const share = Number(uptime.text.split(' ')[0])
  if (!uptime.text.includes('target 99 %') || Math.abs(share - 100 * status.availability.share) > 1 || uptime.status !== (share >= 99 ? 'green' : 'red')) mistakes.push(`system: uptime is ${JSON.stringify([uptime, status.availability])}`)
  if (!/GiB|TiB/.test(disk.text)) mistakes.push(`system: the disk is ${JSON.stringify(disk)}`)
  if (!postgres.text.startsWith('up') || postgres.status !== 'green') mistakes.push(`system: PostgreSQL is ${JSON.stringify(postgres)}`)
  const line = await page.locator('.sub').first().textContent()
  if (!line.includes('Factures asks for 2')) mistakes.push(`system: it does not say that one copy is kept: ${line}`)
  await page.close()
}

async function main() {
  fs.mkdirSync(folder, { recursive: true })
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })
  try {
    for (const [number, page] of expected.entries()) await visit(browser, page, number)
    await system(browser)
    process.stdout.write(JSON.stringify({ mistakes, pages: expected.length, panels, points }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n${JSON.stringify(mistakes)}\n`); process.exitCode = 1 })
