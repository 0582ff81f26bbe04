// Reads every panel of dashboards as people do, in headless Chromium: figures from their cards, tables from their rows, charts from
// "Show as table"; and what each chart draws must be what its table says.
//     panels.js BASE_URL OUT.json FOLDER PAGE…   →   {"mistakes": [...], "panels": n}
// PAGE is a dashboard's name, or name?filter=value&…. OUT.json gets {PAGE: [{title, kind, figure | columns, rows}]}.
'use strict'
const fs = require('fs')
const path = require('path')
const { launch, watch, agreement } = require('./browser.js')

const [base, out, folder, ...pages] = process.argv.slice(2)
const mistakes = []
const json = async (where) => (await fetch(`${base}${where}`)).json()
const PATIENCE_MS = 30000
// Numbers have three decimals at most: what is smaller is shown as 0.
const SHOWN_MIN = 0.0005

// The numbers that a chart draws, without the zeros that fill the gaps of a line and the slice of what is left over.
function drawn(element) {
  const place = element.querySelector('.chart')
  const chart = place && window.echarts.getInstanceByDom(place)
  if (!chart) return null
  const { series } = chart.getOption()
  const wanted = series[0]?.type === 'gauge' ? [series[1]] : series
  const numbers = []
  for (const one of wanted) {
    for (const point of one.data ?? []) {
      if (one.type === 'pie' && /^[\d,]+ others$/.test(point.name)) continue
      const value = point !== null && typeof point === 'object' && !Array.isArray(point) ? point.value : point
      const number = Array.isArray(value) ? value[value.length - 1] : value
      if (number !== null && number !== undefined && number !== 0) numbers.push(number)
    }
  }
  return numbers
}

function tableOf(element) {
  const texts = (row) => [...row.querySelectorAll('th, td')].map((cell) => cell.textContent.trim())
  const table = element.querySelector('table')
  if (!table) return null
  return { columns: [...table.querySelectorAll('thead th')].map((cell) => cell.textContent.replace(/[↓↑↕]/g, '').trim()), rows: [...table.querySelectorAll('tbody tr')].map(texts) }
}

// A number as its table writes it.
const parsed = (text) => Number(text.replace(/[^\d.\-]/g, ''))

// A gauge ends at its ends.
function clamped(text, panel) {
  const number = parsed(text)
  const within = Math.min(Math.max(number, panel.min ?? 0), panel.max ?? 100)
  return within === number ? text : String(within)
}

// What is drawn and what the table says are the same numbers, whatever their order; what is shown as zero is left out.
function compareDrawing(what, numbers, rows, values) {
  const digits = (text) => (text.split('.')[1] ?? '').replace(/\D/g, '').length
  const told = rows.flatMap((row) => values.map((i) => row[i])).map((text) => [parsed(text), digits(text)]).filter(([number]) => number)
  told.sort((a, b) => a[0] - b[0])
  const sorted = numbers.filter((number) => Math.abs(number) >= SHOWN_MIN).sort((a, b) => a - b)
  if (told.length !== sorted.length) return mistakes.push(`${what}: draws ${sorted.length} numbers, its table has ${told.length}`)
  const off = told.findIndex(([number, places], i) => Math.abs(number - sorted[i]) > 0.51 * 10 ** -places)
  if (off >= 0) mistakes.push(`${what}: draws ${sorted[off]}, its table says ${told[off][0]}`)
  return undefined
}

async function readPanel(page, what, { panel, number, where, refreshMs }) {
  const card = page.locator(`section.panel[data-panel="${number}"]`)
  const found = { title: panel.title, kind: panel.kind }
  if (await card.locator('.state.bad').count()) mistakes.push(`${what}: ${await card.locator('.state.bad').textContent()}`)
  if (panel.kind === 'number') {
    const shown = () => card.locator('.figure span').first().textContent()
    const api = async () => { const answer = await json(where); return answer.rows[0]?.[answer.columns.findIndex((column) => column.name === (panel.y[0] ?? column.name))] }
    const agree = (text, value) => value === null || value === undefined || Math.abs(parsed(text) - Number(value)) <= 0.51 * 10 ** -((text.split('.')[1] ?? '').replace(/\D/g, '').length)
    const look = await agreement({ api, shown, refreshMs, agree })
    if (!look.agreed) mistakes.push(`${what}: the page shows ${look.shown}, the API says ${look.after}`)
    return { ...found, figure: look.shown }
  }
  const empty = await card.locator('.state').count()
  if (empty) return { ...found, columns: [], rows: [] }
  if (panel.kind === 'table') return { ...found, ...await card.evaluate(tableOf) }
  const numbers = await card.evaluate(drawn)
  await card.locator('details.pop > summary').click()
  await card.getByRole('button', { name: 'Show as table' }).click()
  await card.locator('table').waitFor({ timeout: PATIENCE_MS })
  const table = await card.evaluate(tableOf)
  const answer = await json(where)
  const group = [answer.x, answer.series].filter(Boolean)
  const values = answer.columns.flatMap((column, i) => ((answer.y?.length ? answer.y.includes(column.name) : !group.includes(column.name)) ? [i] : []))
  if (numbers === null) mistakes.push(`${what}: no chart is drawn`)
  else compareDrawing(what, numbers, panel.kind === 'gauge' ? table.rows.map((row) => row.map((text) => clamped(text, panel))) : table.rows, values)
  return { ...found, ...table }
}

async function readPage(browser, wanted) {
  const [name, query = ''] = wanted.split('?')
  const page = await browser.newPage({ viewport: { width: 1440, height: 1000 }, locale: 'en-US', timezoneId: 'UTC' })
  watch(page, base, (text) => mistakes.push(`${name}: ${text}`))
  const { panels, refresh_ms: refreshMs } = await json(`/v1/dashboards/${name}?data=false`)
  await page.goto(`${base}/d/${wanted}`)
  const settled = (count) => {
    const cards = [...document.querySelectorAll('section.panel')]
    return cards.length === count && cards.every((card) => !card.querySelector('.wait') && !card.classList.contains('waiting'))
  }
  await page.waitForFunction(settled, panels.length, { timeout: PATIENCE_MS }).catch(() => mistakes.push(`${wanted}: not all ${panels.length} panels came`))
  // Viewers share answers of SQL for a while; what was written just now is asked for.
  await page.getByRole('button', { name: 'Refresh' }).click()
  await page.waitForFunction(settled, panels.length, { timeout: PATIENCE_MS }).catch(() => mistakes.push(`${wanted}: not all panels came again`))
  // The charts' first drawing is animated; their data are there at once.
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true })
  const found = []
  for (const [number, panel] of panels.entries()) {
    const where = `/v1/dashboards/${name}/panels/${number}?${query}`
    found.push(await readPanel(page, `${wanted}: ${panel.title}`, { panel, number, where, refreshMs }))
  }
  await page.close()
  return found
}

async function main() {
  fs.mkdirSync(folder, { recursive: true })
  const browser = await launch()
  try {
    const read = {}
    for (const page of pages) read[page] = await readPage(browser, page)
    fs.writeFileSync(out, JSON.stringify(read))
    process.stdout.write(JSON.stringify({ mistakes, panels: Object.values(read).flat().length }) + '\n')
  } finally {
    await browser.close()
  }
}

main().catch((error) => { process.stderr.write(`${error.stack}\n${JSON.stringify(mistakes)}\n`); process.exitCode = 1 })
