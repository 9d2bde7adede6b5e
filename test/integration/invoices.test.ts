import { invoiceSchema } from '#contracts/api-invoice.ts'
import { priceComparisonSchema } from '#contracts/api-price.ts'
import { formatNano } from '#domain/money.ts'
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { useApi, type TestApi } from '../support/api.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { sellRun, type SoldRun } from '../support/sold-run.ts'

const HEAD = 'request_id,model,amount,currency,tokens\n'
const PERIOD = {
  from: new Date(Date.now() - 3_600_000).toISOString(),
  to: new Date(Date.now() + 3_600_000).toISOString(),
}

/** What the sandbox bills for each call, at 0.40 and 1.60 USD per million. */
async function billOf(
  api: TestApi,
  { callIds }: SoldRun,
): Promise<readonly { id: string; cost: bigint; tokens: bigint }[]> {
  const { rows } = await sql<{ id: string; input: bigint; output: bigint }>`
    select call_id || ':' || number as id, (usage->>'input')::bigint as input, (usage->>'output')::bigint as output
    from attempt where call_id = any(${callIds}::uuid[]) order by call_id`.execute(api.db)
  return rows.map(({ id, input, output }) => ({
    id,
    cost: (input * 400_000_000n + output * 1_600_000_000n + 999_999n) / 1_000_000n,
    tokens: input + output,
  }))
}

async function send(api: TestApi, csv: string, change = {}) {
  const body = { provider: 'sandbox', ...PERIOD, csv, ...change }
  return invoiceSchema.parse((await api.ask('POST', '/api/v1/invoices', { key: api.operatorKey, body })).body)
}

test('an invoice that is right matches what was booked at cost, whatever it was sold at; the same one twice is told', async () => {
  const api = await useApi()
  const bill = await billOf(api, await sellRun(api))
  const csv =
    HEAD + bill.map(({ id, cost, tokens }) => `${id},sandbox-steady,${formatNano(cost)},USD,${tokens}\n`).join('')
  const movements = async () =>
    (await sql<{ n: bigint }>`select count(*) as n from transfer`.execute(api.db)).rows[0]?.n
  const before = await movements()
  const first = await send(api, csv)
  expect(first).toMatchObject({ knownSince: null, differences: [], counts: { matched: 3, not_on_invoice: 0 } })
  expect(first.totals.map(({ difference }) => difference)).toEqual([{ amount: '0.000000', currency: 'USD' }])
  const again = await send(api, csv)
  expect(again).toMatchObject({ id: first.id, digest: first.digest, counts: { matched: 3 } })
  expect(again.knownSince).not.toBeNull()
  expect(await movements()).toBe(before)
  await expect(sql`delete from invoice`.execute(api.db)).rejects.toThrow('permission denied')
})

test('differences say which line and which attempt, and nothing of another provider, time or organisation is looked at', async () => {
  const api = await useApi()
  const sold = await sellRun(api)
  const [one, two, three] = await billOf(api, sold)
  const { provider } = await sql<{ provider: string }>`
    select detail->>'providerRequestId' as provider from attempt order by call_id limit 1`
    .execute(api.db)
    .then(({ rows }) => rows[0] ?? { provider: '' })
  const csv = `${HEAD}${provider},sandbox-steady,${formatNano((one?.cost ?? 0n) + 5n)},USD,
${two?.id},sandbox-other,${formatNano(two?.cost ?? 0n)},USD,
gen-nobody,sandbox-steady,1,USD,
`
  const found = await send(api, csv)
  expect(found.counts).toMatchObject({ matched: 0, amount_differs: 1, model_differs: 1, unknown: 1, not_on_invoice: 1 })
  const [callId] = three?.id.split(':') ?? []
  expect(found.differences.find(({ status }) => status === 'not_on_invoice')).toMatchObject({ callId, invoiced: null })
  expect(found.differences.find(({ status }) => status === 'unknown')).toMatchObject({ line: 4, booked: null })
  expect(found.totals).toHaveLength(1)
  expect((await send(api, csv, { provider: 'nobody' })).counts).toMatchObject({ unknown: 3, not_on_invoice: 0 })
  const [from, to] = ['2020-01-01T00:00:00Z', '2020-02-01T00:00:00Z']
  expect((await send(api, csv, { from, to })).counts).toMatchObject({ unknown: 3, not_on_invoice: 0 })
})

test('an invoice that is none is refused with its line, and is an operator’s to send', async () => {
  const api = await useApi()
  const { tenant } = await sellRun(api)
  const ask = (body: object, key = api.operatorKey) => api.ask('POST', '/api/v1/invoices', { key, body })
  const body = { provider: 'sandbox', ...PERIOD, csv: `${HEAD}a,m,1,USD,\nb,m,one,USD,\n` }
  const refused = await ask(body)
  expect(refused.status).toBe(400)
  expect(refused.body['detail']).toContain('line 3 has an amount that is no number')
  expect((await ask({ ...body, to: body.from })).status).toBe(400)
  expect((await ask(body, tenant.key)).status).toBe(403)
  expect(await api.db.selectFrom('invoice').selectAll().execute()).toEqual([])
})

const run = promisify(execFile)

test('the command line compares prices and imports them, prints margins, and compares an invoice', async () => {
  const api = await useApi()
  const sold = await sellRun(api)
  const url = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const env = { ...process.env, PURSER_URL: url, PURSER_KEY: api.operatorKey }
  const purser = async (...args: readonly string[]) => {
    const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
    const done = await run(process.execPath, [main, ...args], { env }).catch((error: unknown) => error)
    return done !== null && typeof done === 'object' && 'stdout' in done ? String(done.stdout) : ''
  }
  const list = fileURLToPath(new URL('../fixtures/prices/litellm.json', import.meta.url))
  const told = await purser('prices', 'diff', list, '--provider', 'deepseek=deep', '--json')
  const { added } = priceComparisonSchema.parse(JSON.parse(told))
  expect(added.length).toBeGreaterThan(1)
  expect(added.every(({ provider }) => provider === 'deep')).toBe(true)
  expect(await purser('prices', 'import', list, '--provider', 'deepseek=deep')).toContain(
    `${added.length} new, 0 changed`,
  )
  expect(await purser('prices', 'diff', list, '--provider', 'deepseek=deep')).toContain(
    `0 new, 0 changed, ${added.length} unchanged`,
  )
  expect(await purser('margins', '--by', 'model,month')).toMatch(/steady +2\d{3}-\d\d +1 +USD/)
  const [one] = await billOf(api, sold)
  const file = join(await useScratchFolder(), 'invoice.csv')
  await writeFile(file, `${HEAD}${one?.id},sandbox-steady,${formatNano(one?.cost ?? 0n)},USD,\n`)
  const printed = await purser('invoice', file, '--provider', 'sandbox', '--from', PERIOD.from, '--to', PERIOD.to)
  expect(printed).toContain('not on invoice')
  expect(printed).toContain('1 matched')
})
