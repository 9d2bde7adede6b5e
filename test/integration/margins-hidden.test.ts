import { formatNano } from '#domain/money.ts'
import { DOCUMENT_PATH } from '#api/documentation.ts'
import { reportSchema } from '#contracts/report.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { useApi, type TestApi } from '../support/api.ts'
import { sellRun, type SoldRun } from '../support/sold-run.ts'
import { expectVerified } from '../support/open-attempt.ts'

/** Every path that answers a GET, as the API's own document lists them, with what there is put in. */
async function readable(api: TestApi, sold: SoldRun): Promise<readonly string[]> {
  const document = z
    .object({ paths: z.record(z.string(), z.record(z.string(), z.unknown())) })
    .parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
  const accounts = await api.db
    .selectFrom('account')
    .select('id')
    .where('project_id', '=', sold.tenant.projectId)
    .execute()
  const month = new Date().toISOString().slice(0, 7)
  return Object.entries(document.paths)
    .filter(([, methods]) => 'get' in methods)
    .flatMap(([path]) => {
      if (path.includes('/accounts/')) return accounts.map(({ id }) => path.replace('{id}', id))
      if (path.includes('/calls/')) return sold.callIds.map((id) => path.replace('{id}', id))
      if (path.includes('/keys/')) return [path.replace('{id}', sold.tenant.keyId)]
      if (path.includes('/statements/'))
        return ['csv', 'json'].map(
          (format) => `${path.replace('{id}', sold.tenant.walletId).replace('{month}', month)}?format=${format}`,
        )
      const owner = path.includes('/wallets/')
        ? sold.tenant.walletId
        : path.includes('/projects/')
          ? sold.tenant.projectId
          : sold.runId
      const filled = path.replace('{id}', owner)
      if (!filled.endsWith('/report')) return [filled]
      return [filled, ...Array.from({ length: 10 }, (_, index) => `${filled}?revision=${index + 1}`)]
    })
}

/** What only the seller may know: rows, accounts, costs, margins, and the prices that providers bill. */
async function secretsOf(api: TestApi): Promise<readonly string[]> {
  const { rows } = await sql<{ id: string; amount: bigint }>`
    select id, amount from transfer where code in ('margin', 'cost_exchange')
    union all select id, null from account where kind = 'revenue'`.execute(api.db)
  const { rows: costs } = await sql<{ cost: bigint; held: bigint }>`
    select r.amount - m.amount as cost, (a.plan->'cost'->>'held')::bigint as held
    from attempt a join transfer r on r.pending_id = a.hold_id join transfer m on m.call_id = a.call_id and m.code = 'margin'
    where a.plan ? 'cost'`.execute(api.db)
  const amounts = [...rows.map(({ amount }) => amount), ...costs.flatMap(({ cost, held }) => [cost, held])]
  const money = amounts.flatMap((amount) => (amount === null ? [] : [`"${formatNano(amount)}"`, `"${amount}"`]))
  return [...rows.map(({ id }) => id), ...money, 'cost_exchange', '"margin"', 'markup', 'revenue', 'costCurrency']
}

test('no customer sees what a sale costs the seller, in any answer', async () => {
  const api = await useApi()
  const sold = await sellRun(api)
  await expectVerified(api)
  const secrets = await secretsOf(api)
  expect(secrets.length).toBeGreaterThan(20)
  const bodies: string[] = []
  for (const url of await readable(api, sold)) {
    const headers = { authorization: `Bearer ${sold.tenant.key}` }
    const { body, statusCode } = await api.app.inject({ method: 'GET', url, headers })
    if (statusCode === 200 && !url.startsWith('/api/docs')) bodies.push(`${url} ${body}`)
  }
  // Models at their sell prices, the report, its revisions, the ledger, calls, statements, events and accounts.
  for (const part of ['/models', '/report', '/ledger', '/calls/', '/statements/', '/events', '/accounts/', '/wallets/'])
    expect(bodies.some((body) => body.split(' ')[0]?.includes(part))).toBe(true)
  for (const body of bodies) expect(secrets.filter((secret) => body.includes(secret))).toEqual([])
  const models = bodies.find((body) => body.startsWith('/api/v1/models')) ?? ''
  const inputs = [...models.matchAll(/"inputPerMillionTokens":\{"amount":"([\d.]+)"/g)].map(([, amount]) => amount)
  expect(inputs).toEqual(['0.450000', '3.024000', '0.400000'])
})

test('the report, the ledger and the accounts that a customer sees agree with each other', async () => {
  const api = await useApi()
  const { tenant, runId } = await sellRun(api)
  const { key } = tenant
  const report = reportSchema.parse((await api.ask('GET', `/api/v1/runs/${runId}/report`, { key })).body)
  const ledger = z
    .object({
      transfers: z.array(z.object({ code: z.string(), credit: z.object({ id: z.string(), kind: z.string() }) })),
    })
    .parse((await api.ask('GET', `/api/v1/runs/${runId}/ledger`, { key })).body)
  expect(report.revision).toBe(ledger.transfers.length)
  const providers = new Set(
    ledger.transfers.flatMap(({ credit }) => (credit.kind === 'provider_cost' ? [credit.id] : [])),
  )
  const seen = new Map<string, string>()
  const known = new Map<string, string>()
  const balance = z.object({ posted: z.object({ amount: z.string(), currency: z.string() }) })
  for (const id of providers) {
    const { posted } = balance.parse((await api.ask('GET', `/api/v1/accounts/${id}/balance`, { key })).body)
    seen.set(posted.currency, posted.amount)
    const own = await api.ask('GET', `/api/v1/accounts/${id}/balance`, { key: api.operatorKey })
    known.set(posted.currency, balance.parse(own.body).posted.amount)
  }
  expect(seen).toEqual(new Map(report.totals.map(({ spent }) => [spent.currency, spent.amount])))
  expect(known.get('CNY')).toBe('0.000000')
  expect(known.get('USD')).not.toBe(seen.get('USD'))
  const revenue = await api.db.selectFrom('account').select('id').where('kind', '=', 'revenue').execute()
  for (const { id } of revenue) {
    expect((await api.ask('GET', `/api/v1/accounts/${id}/balance`, { key })).status).toBe(404)
    expect((await api.ask('GET', `/api/v1/accounts/${id}/balance`, { key: api.operatorKey })).status).toBe(200)
  }
})
