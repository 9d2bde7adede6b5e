import { parseCsv } from '#domain/csv-table.ts'
import { newId } from '#db/ids.ts'
import { json } from '#db/json.ts'
import { openRowMap, recordRows, type RowOutcome } from '#db/row-map.ts'
import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '#test/support/admin.ts'
import { makeTenant, runBody, text, useApi, type Tenant, type TestApi } from '#test/support/api.ts'

const moods = {
  type: 'object',
  properties: { mood: { type: 'string' }, names: { type: 'array', items: { type: 'string' } } },
  required: ['mood'],
}

async function upload(api: TestApi, { key }: Tenant, file: string): Promise<string> {
  const response = await api.app.inject({
    method: 'POST',
    url: '/api/v1/datasets?name=x',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'text/csv' },
    payload: file,
  })
  return text(response.json(), 'id')
}

const mapBody = (input: Readonly<Record<string, unknown>>) =>
  runBody({ agent: 'map', input: { prompt: '{{=cmd}}', maxTokens: 10, ...input } })

/** A run whose rows have these outcomes; `answers` are the texts of those that are answered. */
async function makeResults(
  api: TestApi,
  tenant: Tenant,
  {
    file,
    outcomes,
    answers,
    schema,
  }: {
    readonly file: string
    readonly outcomes: readonly RowOutcome[]
    readonly answers: readonly string[]
    readonly schema?: Readonly<Record<string, unknown>>
  },
): Promise<string> {
  const datasetId = await upload(api, tenant, file)
  const runId = text(await api.make('/api/v1/runs', { key: tenant.key, body: mapBody({ datasetId }) }), 'id')
  const scope = { projectId: tenant.projectId }
  const run = await api.db.selectFrom('run').selectAll().where('id', '=', runId).executeTakeFirstOrThrow()
  const ask = { model: 'steady', maxTokens: 10, messages: [], ...(schema && { schema: { name: 'row', schema } }) }
  const map = { runId, path: 'rows' }
  await openRowMap(api.db, scope, { ...map, datasetId, ask })
  const calls = await Promise.all(
    answers.map(async (answer) => {
      const [id, answerId] = [newId(Date.now()), newId(Date.now())]
      const body = json({ text: answer, finishReason: 'stop' })
      const payload = { id: answerId, project_id: tenant.projectId, run_id: runId, kind: 'answer' as const, body }
      await api.db.insertInto('payload').values(payload).execute()
      const call = {
        id,
        project_id: tenant.projectId,
        run_id: runId,
        envelope_id: run.envelope_id,
        api_key_id: tenant.keyId,
        path: `rows/${id}`,
        digest: Buffer.from('00', 'hex'),
        model: 'steady',
        catalog_version: 1,
        request_id: newId(Date.now()),
        state: 'answered' as const,
        answer_id: answerId,
        answer_attempt: 1,
        answered_at: new Date(),
      }
      await api.db.insertInto('call').values(call).execute()
      return id
    }),
  )
  let next = 0
  const recorded = outcomes.map((each) => {
    if (each.outcome !== 'answered') return each
    next += 1
    return { ...each, callId: calls[next - 1] }
  })
  await recordRows(api.db, scope, { map, outcomes: recorded })
  return runId
}

async function download(api: TestApi, { key }: Tenant, path: string) {
  const response = await api.app.inject({
    method: 'GET',
    url: `/api/v1${path}`,
    headers: { authorization: `Bearer ${key}` },
  })
  return { status: response.statusCode, type: response.headers['content-type'], text: response.body }
}

const HOSTILE = '=cmd,"a ""b"", c",error\n"=1+1","@x\n-y",\n"\t=2","ok","e"\n+3,4,5\n-6,7,8\n'

test('results are the rows in order, with answers, errors and columns of their own, and no cell runs in a spreadsheet', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await makeResults(api, tenant, {
    file: HOSTILE,
    answers: ['=HYPERLINK("x")', '  @SUM(1)'],
    outcomes: [
      { number: 1, outcome: 'answered' },
      { number: 2, outcome: 'failed', reason: 'missing_column', detail: '=detail' },
      { number: 3, outcome: 'answered' },
    ],
  })
  const csv = await download(api, tenant, `/runs/${runId}/rows?format=csv`)
  expect([csv.status, csv.type]).toEqual([200, 'text/csv; charset=utf-8; header=present'])
  const table = parseCsv(csv.text)
  expect(table).toMatchObject({ ok: true })
  expect(table.ok && table.rows.map(({ cells }) => cells)).toEqual([
    ['row', "'=cmd", 'a "b", c', 'error', 'state', 'answer', 'error_', 'error_detail', 'cost', 'currency'],
    ['1', "'=1+1", "'@x\n-y", '', 'answered', `'=HYPERLINK("x")`, '', '', '', ''],
    ['2', "'\t=2", 'ok', 'e', 'failed', '', 'missing_column', "'=detail", '', ''],
    ['3', "'+3", '4', '5', 'answered', "'  @SUM(1)", '', '', '', ''],
    ['4', "'-6", '7', '8', 'open', '', '', '', '', ''],
  ])
  const listed = await api.ask('GET', `/api/v1/runs/${runId}/rows`, { key: tenant.key })
  expect(listed.body).toMatchObject({
    runId,
    path: 'rows',
    end: true,
    rows: [
      { row: 1, input: { '=cmd': '=1+1' }, state: 'answered', answer: '=HYPERLINK("x")', error: null, cost: [] },
      { row: 2, state: 'failed', answer: null, error: { reason: 'missing_column', detail: '=detail' } },
      { row: 3 },
      { row: 4, state: 'open', answer: null, error: null },
    ],
  })
  const lines = await download(api, tenant, `/runs/${runId}/rows?format=jsonl`)
  expect(
    lines.text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toEqual(listed.body['rows'])
  const counts = await api.ask('GET', `/api/v1/runs/${runId}/row-counts`, { key: tenant.key })
  expect(counts.body).toEqual({ path: 'rows', rows: 4, answered: 2, failed: 1 })
})

test('answers with a schema are objects, and columns', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await makeResults(api, tenant, {
    file: '=cmd,mood\n1,2\n3,4\n',
    answers: ['```json\n{"mood":"=calm","names":["a"]}\n```', '{"mood":"wild"}'],
    schema: moods,
    outcomes: [
      { number: 1, outcome: 'answered' },
      { number: 2, outcome: 'answered' },
    ],
  })
  const csv = await download(api, tenant, `/runs/${runId}/rows?format=csv`)
  const table = parseCsv(csv.text)
  expect(table.ok && table.rows.map(({ cells }) => cells.slice(0, 6))).toEqual([
    ['row', "'=cmd", 'mood', 'state', 'mood_', 'names'],
    ['1', '1', '2', 'answered', "'=calm", '["a"]'],
    ['2', '3', '4', 'answered', 'wild', ''],
  ])
  const { body } = await api.ask('GET', `/api/v1/runs/${runId}/rows`, { key: tenant.key })
  expect(body).toMatchObject({ rows: [{ answer: { mood: '=calm', names: ['a'] } }, { answer: { mood: 'wild' } }] })
})

test('a schema that names no properties has its answers in one column', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await makeResults(api, tenant, {
    file: '=cmd\n1\n',
    answers: ['{"mood":"calm"}'],
    schema: { type: 'object', properties: {} },
    outcomes: [{ number: 1, outcome: 'answered' }],
  })
  const csv = await download(api, tenant, `/runs/${runId}/rows?format=csv`)
  const table = parseCsv(csv.text)
  expect(table.ok && table.rows.map(({ cells }) => cells.slice(3, 4))).toEqual([['answer'], ['{"mood":"calm"}']])
})

test('readers who stop reading take places of their own project only', async () => {
  const api = await useApi()
  const [slow, other] = [await makeTenant(api), await makeTenant(api)]
  const file = `=cmd\n${`${'x'.repeat(60_000)}\n`.repeat(300)}`
  const runId = await makeResults(api, slow, { file, answers: [], outcomes: [] })
  const small = await makeResults(api, other, { file: '=cmd\n1\n', answers: [], outcomes: [] })
  const { port } = new URL(await api.app.listen({ host: '127.0.0.1', port: 0 }))
  const sockets = Array.from({ length: 4 }, () => connect(Number(port), '127.0.0.1'))
  onTestFinished(() => sockets.forEach((socket) => socket.destroy()))
  for (const socket of sockets) {
    socket.write(`GET /api/v1/runs/${runId}/rows HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${slow.key}\r\n\r\n`)
    // The beginning of its answer; nothing is read after it.
    await once(socket, 'readable')
  }
  expect((await download(api, slow, `/runs/${runId}/rows`)).status).toBe(503)
  expect((await download(api, other, `/runs/${small}/rows`)).status).toBe(200)
})

test('what every row would fail at is refused before money moves, with everything that is wrong', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const datasetId = await upload(api, tenant, 'name,city\na,b\n')
  const ask = (input: object) =>
    api.ask('POST', '/api/v1/runs', { key: tenant.key, body: mapBody({ datasetId, ...input }) })
  const refused = await ask({ prompt: '{{nome}} {{name}}', system: '{{citta}}', schema: { pattern: '(a+)+$' } })
  expect(refused).toMatchObject({
    status: 400,
    body: {
      errors: [
        { path: 'input.prompt', message: '{{nome}} is no column of the dataset' },
        { path: 'input.system', message: '{{citta}} is no column of the dataset' },
        { path: 'input.schema', message: 'uses pattern, which is not supported here' },
      ],
      remedy: expect.stringContaining('{{name}}, {{city}}, {{row}}'),
    },
  })
  const schemas = [
    { type: 'object', properties: { a: { type: 'nonsense' } } },
    { type: 'object', properties: { a: { items: { patternProperties: { '(a+)+': {} } } } } },
    { $ref: '#' },
    { type: 'object', description: 'x'.repeat(10_000) },
    // Every answer would be paid for, and none is a text or a list.
    { type: 'string' },
    { type: ['array', 'null'] },
    JSON.parse(`{"enum":${'['.repeat(3_000)}${']'.repeat(3_000)}}`),
  ]
  for (const bad of schemas) expect((await ask({ prompt: '{{name}}', schema: bad })).status).toBe(400)
  expect((await ask({ prompt: '{{name}}', datasetId: newId(Date.now()) })).status).toBe(404)
  const other = await makeTenant(api)
  const foreign = await api.ask('POST', '/api/v1/runs', { key: other.key, body: mapBody({ datasetId, prompt: 'x' }) })
  expect(foreign.status).toBe(404)
  const properties = { pattern: { type: 'string' }, city: { type: 'string' } }
  // Postgres refuses such names.
  const odd = { type: 'object', properties: { 'a\0': { type: 'string' }, '\ud800': { type: 'string' } } }
  expect((await ask({ prompt: '{{name}}', schema: odd })).body['input']).toMatchObject({
    schema: { properties: { 'a\uFFFD': { type: 'string' }, '\uFFFD': { type: 'string' } } },
  })
  const accepted = await ask({ prompt: '{{name}} {{row}}', schema: { type: 'object', properties } })
  expect([accepted.status, accepted.body['input']]).toMatchObject([201, { concurrency: 16 }])
})

test('a run that asks about no rows has no results', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = text(await api.make('/api/v1/runs', { key: tenant.key, body: runBody() }), 'id')
  for (const path of ['rows', 'row-counts', 'rows?path=other']) {
    expect((await api.ask('GET', `/api/v1/runs/${runId}/${path}`, { key: tenant.key })).status).toBe(404)
  }
})

test('a dry run knows how many rows there are', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const datasetId = await upload(api, tenant, `name\n${'a long name\n'.repeat(700)}`)
  const body = { ...mapBody({ datasetId, prompt: 'Who is {{name}}?' }), dryRun: true }
  const planned = await api.ask('POST', '/api/v1/runs', { key: tenant.key, body })
  expect(planned).toMatchObject({ status: 200, body: { steps: [{ path: 'rows', calls: { least: 700, most: 700 } }] } })
})

test('a row whose answer is not stored any more says so, in every format', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await makeResults(api, tenant, {
    file: '=cmd\nAda\nGrace\n',
    answers: ['{"mood": "glad"}', '{"mood": "sad"}'],
    schema: moods,
    outcomes: [
      { number: 1, outcome: 'answered' },
      { number: 2, outcome: 'answered' },
    ],
  })
  await asAdmin(api, (admin) =>
    admin.query(`update payload set digest = payload_digest(body), body = null, erased_at = clock_timestamp()
      where body->>'text' like '%glad%'`),
  )
  const listed = await api.ask('GET', `/api/v1/runs/${runId}/rows`, { key: tenant.key })
  expect(listed.body).toMatchObject({
    rows: [
      { row: 1, state: 'answered', answer: null, error: { reason: 'answer_not_stored' } },
      { row: 2, state: 'answered', answer: { mood: 'sad' }, error: null },
    ],
  })
  const csv = parseCsv((await download(api, tenant, `/runs/${runId}/rows?format=csv`)).text)
  expect(csv.ok && csv.rows.map(({ cells }) => cells.slice(0, 6))).toEqual([
    ['row', "'=cmd", 'state', 'mood', 'names', 'error'],
    ['1', 'Ada', 'answered', '', '', 'answer_not_stored'],
    ['2', 'Grace', 'answered', 'sad', '', ''],
  ])
})
