// Opens a dashboard with every kind of panel in headless Chromium, at two widths, and compares what it shows with what was expected.
//     dashboards.js BASE_URL EXPECTED.json FOLDER   →   {"mistakes": [...], "compared": [...], "wanted": n, "downloads": {name: path}}
'use strict'
const fs = require('fs')
const path = require('path')
const { launch, watch, agreement } = require('./browser.js')

const [base, plan, folder] = process.argv.slice(2)
const expected = JSON.parse(fs.readFileSync(plan, 'utf8'))
const mistakes = []
const compared = []
const downloads = {}
const SIZES = [{ width: 1440, height: 1000 }, { width: 360, height: 760 }]
const money = (value) => new Intl.NumberFormat('en-US', { style: 'currency', currency: 'EUR', minimumFractionDigits: value >= 100000 ? 0 : 2, maximumFractionDigits: value >= 100000 ? 0 : 2 }).format(value)
const card = (page, title) => page.locator(`section.panel[aria-label="${title}"]`)

function same(what, shown, wanted) {
  compared.push(what)
  if (String(shown) !== String(wanted)) mistakes.push(`${what}: the page shows ${shown}, expected ${wanted}`)
}

// What a page comes to show: panels are drawn one after the other.
async function comes(what, read, wanted) {
  const shown = async () => String(await read().catch(() => 'nothing'))
  const look = await agreement({ api: async () => String(wanted), shown })
  same(what, look.shown, wanted)
}

async function figure(page, title, wanted, what) {
  const place = card(page, title).locator('.figure span')
  await page.waitForFunction(([title, wanted]) => document.querySelector(`section.panel[aria-label="${title}"] .figure span`)?.textContent === wanted, [title, wanted], { timeout: 15000 }).catch(() => {})
  same(what, await place.textContent({ timeout: 5000 }).catch(() => 'nothing'), wanted)
}

async function fits(page, name) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  if (over > 0) mistakes.push(`${name}: scrolls sideways by ${over} px`)
}

async function everything(browser, size) {
  const name = `${size.width} px`
  const page = await browser.newPage({ viewport: size, locale: 'en-US', timezoneId: 'UTC' })
  watch(page, base, (text) => mistakes.push(`${name}: ${text}`))
  await page.goto(`${base}/d/everything`)
  await figure(page, 'Revenue', money(expected.revenue), `${name}: revenue`)
  await figure(page, 'Invoices', String(expected.invoices), `${name}: invoices`)
  await page.waitForFunction(() => document.querySelectorAll('section.panel:has(canvas)').length >= 6, null, { timeout: 20000 })
  const drawn = () => page.evaluate(() => {
    const painted = (canvas) => canvas.width > 50 && canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value !== 0)
    return [...document.querySelectorAll('section.panel')].filter((panel) => [...panel.querySelectorAll('canvas')].some(painted)).length
  })
  await comes(`${name}: charts drawn`, drawn, 6)
  for (const [title, status] of [['Invoices', 'green'], ['Paid', 'orange'], ['Newest', 'red'], ['Revenue', '']]) await comes(`${name}: ${title} stands`, () => card(page, title).getAttribute('data-status'), status)
  await comes(`${name}: the page stands`, () => page.locator('.standing .stand').getAttribute('data-status'), 'red')
  await comes(`${name}: a panel in trouble says so`, async () => (await card(page, 'In trouble').textContent()).includes('nothing_like_it'), true)
  const change = (100 * (expected.revenue - 50000)) / 50000
  await comes(`${name}: change`, async () => (await card(page, 'Revenue').locator('.change b').textContent()).replace(/[^\d.]/g, ''), Math.abs(change).toFixed(1))
  await card(page, 'Newest').locator('tbody tr').first().waitFor()
  const cells = await card(page, 'Newest').locator('tbody tr').first().locator('th, td').allTextContents()
  same(`${name}: first row`, cells.slice(0, 4).join(' | '), [expected.first.id, expected.first.client, expected.first.skill, money(expected.first.cents / 100)].join(' | '))
  same(`${name}: status cell`, cells.at(-1), 'good')
  await fits(page, name)
  fs.mkdirSync(folder, { recursive: true })
  await page.screenshot({ path: path.join(folder, `everything-${size.width}.png`), fullPage: true })
  if (size.width > 1000) await interact(page)
  await page.close()
}

async function interact(page) {
  // A filter goes into the address, and back again.
  await page.locator('select[data-key="skill"]').selectOption('Rust')
  await figure(page, 'Revenue', money(expected.rust), 'filtered revenue')
  await figure(page, 'Invoices', String(expected.rust_invoices), 'filtered view')
  same('the filter stands in the address', new URL(page.url()).search, '?skill=Rust')
  await comes('a panel that does not heed it says so', async () => (await card(page, 'Per month').locator('.note').textContent()).includes('not by skill'), true)
  await page.goBack()
  await figure(page, 'Revenue', money(expected.revenue), 'revenue after going back')
  same('the address after going back', new URL(page.url()).search, '')
  await page.getByRole('button', { name: '30 days' }).click()
  await figure(page, 'Revenue', money(expected.month), 'revenue of thirty days')
  await page.goto(`${base}/d/everything?client=Airbus&client=Danone`)
  await figure(page, 'Revenue', money(expected.two_clients), 'revenue of two clients by a deep link')
  await page.goto(`${base}/d/everything?${new URLSearchParams({ skill: expected.skills[3] })}`)
  await figure(page, 'Revenue', money(expected.obrien), 'a value with quotes and an ampersand')
  await page.goto(`${base}/d/everything?${new URLSearchParams({ skill: "' OR '1'='1" })}`)
  await figure(page, 'Revenue', '–', 'a value that would be SQL')

  await page.goto(`${base}/d/everything`)
  await figure(page, 'Revenue', money(expected.revenue), 'revenue before a pause')
  await page.getByRole('button', { name: 'Pause' }).click()
  same('paused', (await page.locator('.sub').first().textContent()).startsWith('Paused'), true)
  await page.getByRole('button', { name: 'Refresh' }).click()
  await page.getByRole('button', { name: 'Resume' }).click()

  const heading = card(page, 'Newest').getByRole('button', { name: 'Amount' })
  await heading.click()
  const amounts = await card(page, 'Newest').locator('tbody tr td:nth-child(4)').allTextContents()
  const numbers = amounts.map((text) => Number(text.replace(/[^\d.]/g, '')))
  same('sorted by a click', numbers.length > 3 && numbers.every((value, i) => i === 0 || numbers[i - 1] >= value), true)

  for (const [format, link] of [['xlsx', 'Excel'], ['csv', 'CSV']]) {
    await card(page, 'Newest').locator('details.pop > summary').click()
    const [download] = await Promise.all([page.waitForEvent('download'), card(page, 'Newest').getByRole('link', { name: link }).click()])
    same(`name of the ${format} file`, download.suggestedFilename(), `everything-newest.${format}`)
    downloads[`panel.${format}`] = path.join(folder, `panel.${format}`)
    await download.saveAs(downloads[`panel.${format}`])
  }
}

async function others(browser) {
  for (const size of SIZES) {
    const page = await browser.newPage({ viewport: size, locale: 'en-US', timezoneId: 'UTC' })
    watch(page, base, (text) => mistakes.push(`others at ${size.width} px: ${text}`))
    for (const place of ['/', '/topics?topic=invoices', '/pipelines', '/lake', '/catalog?name=stream:invoices', '/sql?q=SELECT+1+AS+one', '/system', '/jobs', '/alerts', '/sources', '/quality']) {
      const pages = (await (await fetch(`${base}/v1/dashboards?status=false`)).json()).pages
      if (['/jobs', '/alerts', '/sources', '/quality'].includes(place) && !pages.includes(place.slice(1))) continue
      await page.goto(`${base}${place}`)
      await page.waitForSelector('main h1', { timeout: 15000 })
      await page.waitForTimeout(500)
      await fits(page, `${place} at ${size.width} px`)
      const failed = await page.locator('main .bad b').allTextContents()
      if (failed.length) mistakes.push(`${place}: ${failed}`)
      await page.screenshot({ path: path.join(folder, `${place.replace(/\W+/g, '-')}-${size.width}.png`) })
    }
    if (size.width > 1000) {
      await page.goto(`${base}/`)
      await page.waitForSelector('a.tilecard[data-status="green"]', { timeout: 15000 })
      await comes('lights of the start page', async () => (await page.locator('a.tilecard').evaluateAll((cards) => cards.map((card) => card.dataset.status))).join(), 'red,green')
      await comes('lights of the menu', async () => (await page.locator('nav .light').evaluateAll((lights) => lights.map((light) => light.getAttribute('aria-label')))).join(), 'alarm,good')
      await page.locator('a.tilecard', { hasText: 'Calm' }).click()
      await figure(page, 'Count', String(expected.invoices), 'a card leads to its dashboard')
    } else {
      await page.getByRole('button', { name: 'Menu' }).click()
      await page.locator('nav a', { hasText: 'Calm' }).click()
      await figure(page, 'Count', String(expected.invoices), 'the menu leads to a dashboard')
    }
    await page.close()
  }
}

async function main() {
  const browser = await launch()
  try {
    for (const size of SIZES) await everything(browser, size)
    await others(browser)
  } finally {
    await browser.close()
  }
  const wanted = 12 * SIZES.length + 15 + 4
  process.stdout.write(JSON.stringify({ mistakes, compared, wanted, downloads }) + '\n')
}

main().catch((error) => { process.stderr.write(`${error.stack}\n${JSON.stringify(mistakes)}\n`); process.exitCode = 1 })
