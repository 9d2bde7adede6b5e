import { DOCUMENT_PATH } from '#api/documentation.ts'
import { isMomentAndId } from '#api/page.ts'
import { newId } from '#db/ids.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeTenant, runBody, startTestRun, text, uploadDataset, useApi, type TestApi } from '../support/api.ts'

/** What clumsy and hostile clients write into an address. Neither Postgres nor a date of JavaScript takes all of it. */
const ODD = [
  '%00',
  'a%00b',
  '%ED%A0%80',
  '',
  '-1',
  '1e9',
  'NaN',
  'DROP',
  '__proto__',
  'x'.repeat(3_000),
  '0000-01-01T00:00:00Z',
  '9999-12-31T23:59:59.9999999Z',
  '9999-12-31T23:59:59-23:59',
  '2026-01-01T00:00:00%2B16:00',
  '2026-02-29T00:00:00Z',
  'infinity',
  '%EF%BC%91',
]

const documentSchema = z.object({
  paths: z.record(
    z.string(),
    z.object({
      get: z.object({ parameters: z.array(z.object({ in: z.string(), name: z.string() })).default([]) }).optional(),
    }),
  ),
})

/** Ids of what a project has, by the first part of the addresses that name them. */
async function idsOf(api: TestApi) {
  const tenant = await makeTenant(api)
  const { key } = tenant
  const make = async (path: string, body: object) => text(await api.make(path, { key, body }), 'id')
  const { id: account } = await api.db.selectFrom('account').select('id').executeTakeFirstOrThrow()
  const ids: Readonly<Record<string, string>> = {
    projects: tenant.projectId,
    keys: tenant.keyId,
    wallets: tenant.walletId,
    accounts: account,
    runs: await startTestRun(api, tenant),
    datasets: await uploadDataset(api, tenant),
    webhooks: await make('/api/v1/webhooks', { url: 'https://example.org/', topics: ['state'] }),
    schedules: await make('/api/v1/schedules', { name: 'hourly', every: 3_600, run: runBody() }),
    corpora: await make('/api/v1/corpora', { name: 'papers' }),
  }
  return { tenant, ids }
}

test('whatever is asked of a listing, it is answered or refused as the document says, and never a failure', async () => {
  const api = await useApi()
  const { tenant, ids } = await idsOf(api)
  const { paths } = documentSchema.parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
  const failures: string[] = []
  let asked = 0
  for (const [path, { get }] of Object.entries(paths)) {
    if (!path.startsWith('/api/v1') || !get) continue
    const address = path
      .replace('{id}', ids[path.split('/')[3] ?? ''] ?? newId(Date.now()))
      .replace('{month}', '2026-10')
      .replaceAll(/\{\w+\}/g, 'none')
    const names = get.parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name)
    const queries = names.flatMap((name) => [...ODD.map((value) => `${name}=${value}`), `${name}=1&${name}=2`])
    const whose = names.includes('projectId') ? `&projectId=${tenant.projectId}` : ''
    const stream = names.includes('format') ? '&format=json' : ''
    for (const query of queries) {
      const url = `${address}?${query}${query.startsWith('projectId=') ? '' : whose}${query.startsWith('format=') ? '' : stream}`
      const { status } = await api.ask('GET', url, { key: api.operatorKey })
      asked += 1
      if (status >= 500) failures.push(`${url} ${status}`)
    }
  }
  expect(failures).toEqual([])
  expect(asked).toBeGreaterThan(1_000)
}, 120_000)

test('an address that does not decode is refused as the document says, wherever it has an id', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  for (const path of ['/runs/%ff', '/deposits/%ED%A0%80', '/corpora/%ff/passages/%ff', '/schedules/%ff']) {
    expect([path, (await api.ask('GET', `/api/v1${path}`, { key })).status]).toEqual([path, 400])
  }
})

test('a place that no calendar has is no place of a listing in time', () => {
  const id = newId(Date.now())
  expect(isMomentAndId(`2026-02-28T00:00:00.000001Z_${id}`)).toBe(true)
  for (const at of ['2026-02-30T00:00:00.000000Z', '0000-01-01T00:00:00.000000Z', '2026-01-01T24:00:00.000000Z']) {
    expect([at, isMomentAndId(`${at}_${id}`)]).toEqual([at, false])
  }
})
