import { statementSchema } from '#contracts/statement.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { makeTenant, startTestRun, useApi, usd, type TestApi } from '#test/support/api.ts'
import { readCsv } from '../support/csv.ts'
import { useScratchFolder } from '../support/scratch.ts'

const run = promisify(execFile)

/** This month and the next one, by the database's clock. */
async function months(api: TestApi, timeZone = 'UTC') {
  const { rows } = await sql<{ now: string; next: string }>`
    select to_char(clock_timestamp() at time zone ${timeZone}, 'YYYY-MM') as now,
      to_char(clock_timestamp() at time zone ${timeZone} + interval '40 days', 'YYYY-MM') as next`.execute(api.db)
  const [row] = rows
  if (!row) throw new Error('the clock answered nothing')
  return row
}

test('a statement is answered in JSON and CSV, as the documentation says, with names of runs and keys', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await startTestRun(api, tenant)
  const { now } = await months(api)
  const path = `/api/v1/wallets/${tenant.walletId}/statements/${now}`
  const answer = await api.ask('GET', path, { key: tenant.key })
  expect(answer.headers['content-type']).toMatch(/^application\/json/)
  const statement = statementSchema.parse(answer.body)
  expect(statement).toMatchObject({ month: now, timeZone: 'UTC', final: false, project: { id: tenant.projectId } })
  const [direct] = statement.balances
  expect(direct).toMatchObject({
    opening: usd('0.000000'),
    closing: usd('9.000000'),
    inEnvelopes: { closing: usd('1.000000') },
  })
  expect(direct?.movements.map(({ code, amount }) => `${code} ${amount.amount}`)).toEqual([
    'deposit 10.000000',
    'top_up -1.000000',
  ])
  expect(direct?.movements[1]).toMatchObject({
    run: { id: runId, agent: 'echo' },
    apiKey: { id: tenant.keyId, name: 'first' },
  })
  expect(statement.envelopes).toMatchObject([{ run: { id: runId }, pockets: [{ closing: usd('1.000000') }] }])
  const csv = await api.app.inject({
    method: 'GET',
    url: `${path}?format=csv`,
    headers: { authorization: `Bearer ${tenant.key}` },
  })
  expect(csv.headers['content-type']).toMatch(/^text\/csv/)
  expect(csv.headers['content-disposition']).toBe(`attachment; filename="statement-${now}-${tenant.walletId}.csv"`)
  const rows = readCsv(csv.body).map(([row]) => row)
  expect(rows.join(' ')).toBe(
    'row opening movement movement closing opening movement closing pocket_opening pocket pocket_closing end',
  )
})

test('a month that has not begun, a bad zone and somebody else’s wallet are refused by name', async () => {
  const api = await useApi()
  const { key, walletId } = await makeTenant(api)
  const stranger = await makeTenant(api)
  const { now, next } = await months(api)
  const path = `/api/v1/wallets/${walletId}/statements`
  const refusals = [
    [`${path}/${next}`, 400, 'invalid_instant'],
    [`${path}/2026-13`, 400, 'invalid_request'],
    [`${path}/1999-01`, 400, 'invalid_request'],
    [`${path}/november`, 400, 'invalid_request'],
    [`${path}/${now}?timeZone=Mars/Olympus`, 400, 'invalid_request'],
    [`${path}/${now}?timeZone=%2B02:00`, 400, 'invalid_request'],
    [`${path}/${now}?timeZone=UTC'%3B`, 400, 'invalid_request'],
    [`${path}/${now}?format=pdf`, 400, 'invalid_request'],
    [`/api/v1/wallets/nothing/statements/${now}`, 404, 'not_found'],
  ] as const
  for (const [url, status, code] of refusals) {
    const answer = await api.ask('GET', url, { key })
    expect([url, answer.status, answer.body['code']]).toEqual([url, status, code])
  }
  expect((await api.ask('GET', `${path}/${now}`, { key: stranger.key })).status).toBe(404)
  for (const timeZone of ['Asia/Shanghai', 'America/New_York', 'Etc/GMT+12', 'Pacific/Kiritimati']) {
    const here = await months(api, timeZone)
    const { status, body } = await api.ask('GET', `${path}/${here.now}?timeZone=${encodeURIComponent(timeZone)}`, {
      key,
    })
    expect([status, body['timeZone']]).toEqual([200, timeZone])
  }
  const zone = await api.ask('GET', `${path}/2026-03?timeZone=America/New_York`, { key })
  expect(zone.body).toMatchObject({
    from: '2026-03-01T05:00:00.000000Z',
    to: '2026-04-01T04:00:00.000000Z',
    final: true,
  })
})

test('a statement that would not add up is cut off, not ended', async () => {
  const api = await useApi()
  const { key, walletId } = await makeTenant(api)
  const { now } = await months(api)
  await tamper(api, `update transfer set amount = amount + 1 where code = 'deposit'`)
  const headers = { authorization: `Bearer ${key}` }
  for (const format of ['json', 'csv']) {
    const answer = api.app.inject({ url: `/api/v1/wallets/${walletId}/statements/${now}?format=${format}`, headers })
    await expect(answer).rejects.toThrow('destroyed before completion')
  }
})

test('the command writes what the API answers, to a file or to standard output', async () => {
  const api = await useApi()
  const { key, walletId } = await makeTenant(api)
  const { now, next } = await months(api)
  const address = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const env = { ...process.env, PURSER_URL: address, PURSER_KEY: key }
  const purser = (...args: readonly string[]) =>
    run(process.execPath, ['src/cli/main.ts', 'statement', ...args], { env })
  const printed = await purser(now, '--wallet', walletId)
  expect(readCsv(printed.stdout).at(-1)?.[0]).toBe('end')
  const folder = await useScratchFolder()
  const file = join(folder, 'statement.json')
  await purser(now, '--wallet', walletId, '--time-zone', 'Asia/Shanghai', '--output', file)
  const saved = statementSchema.parse(JSON.parse(await readFile(file, 'utf8')))
  expect(saved).toMatchObject({ walletId, timeZone: 'Asia/Shanghai', end: true })
  await expect(purser(next, '--wallet', walletId)).rejects.toThrow('has not begun yet')
  await expect(purser(now, '--wallet', walletId, '--format', 'pdf')).rejects.toThrow('it is csv or json')
  await expect(purser(now)).rejects.toThrow('--wallet')
  await expect(purser()).rejects.toThrow('the month is missing')
})

async function tamper(api: TestApi, text: string): Promise<void> {
  const admin = new pg.Client(api.database.adminUrl)
  await admin.connect()
  onTestFinished(() => admin.end())
  await admin.query('set session_replication_role = replica')
  await admin.query(text)
}
