import { MAX_DATASET_BYTES } from '#contracts/api-dataset.ts'
import { connectDatabase } from '#db/database.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, useApi, type TestApi } from '#test/support/api.ts'

interface Upload {
  readonly key: string
  readonly file: string | Buffer
  readonly type?: string
  readonly query?: string
  readonly once?: string
}

async function upload(api: TestApi, { key, file, type = 'text/csv', query = 'name=people', once }: Upload) {
  const response = await api.app.inject({
    method: 'POST',
    url: `/api/v1/datasets?${query}`,
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': type,
      ...(once !== undefined && { 'idempotency-key': once }),
    },
    payload: file,
  })
  return { status: response.statusCode, body: response.json(), replayed: response.headers['idempotency-replayed'] }
}

test('a CSV file becomes rows, which are read in pages and in order', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const made = await upload(api, { key, file: 'zip,name\r\n"01234","Ada, L."\r\n2,\r\n3,Grace\r\n' })
  expect(made).toMatchObject({
    status: 201,
    body: { name: 'people', format: 'csv', columns: ['zip', 'name'], rows: 3, mostRowBytes: 32 },
  })
  const path = `/api/v1/datasets/${made.body.id}`
  expect((await api.ask('GET', path, { key })).body).toEqual(made.body)
  const first = await api.ask('GET', `${path}/rows?limit=2`, { key })
  expect(first.body).toEqual({
    rows: [
      { number: 1, values: { zip: '01234', name: 'Ada, L.' } },
      { number: 2, values: { zip: '2', name: '' } },
    ],
    nextCursor: expect.any(String),
  })
  const rest = await api.ask('GET', `${path}/rows?limit=2&cursor=${String(first.body['nextCursor'])}`, { key })
  expect(rest.body).toEqual({ rows: [{ number: 3, values: { zip: '3', name: 'Grace' } }], nextCursor: null })
  expect(JSON.stringify(first.body)).toContain('{"zip":"01234","name":"Ada, L."}')
  expect((await api.ask('GET', '/api/v1/datasets', { key })).body).toEqual({ datasets: [made.body], nextCursor: null })
})

test('JSON lines become rows of the columns of all of them', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const file = '{"id":1,"tags":["a"]}\n{"id":2,"note":null}\n'
  const made = await upload(api, { key, file, type: 'application/x-ndjson; charset=utf-8' })
  expect(made).toMatchObject({ status: 201, body: { format: 'jsonl', columns: ['id', 'tags', 'note'], rows: 2 } })
})

test('a file sent again is the same dataset, with a key and without one; under another name it is another', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const file = `id\n${Array.from({ length: 5_000 }, (_, index) => index).join('\n')}`
  const [one, two] = await Promise.all([upload(api, { key, file, once: 'a' }), upload(api, { key, file })])
  expect([one.status, two.status, one.body]).toEqual([201, 201, two.body])
  const again = await upload(api, { key, file, once: 'a' })
  expect([again.body, again.replayed]).toEqual([one.body, 'true'])
  expect(await upload(api, { key, file: `${file}\n`, once: 'a' })).toMatchObject({
    status: 422,
    body: { code: 'idempotency_mismatch' },
  })
  const other = await upload(api, { key, file, query: 'name=others', once: 'a' })
  expect(other).toMatchObject({ status: 422, body: { code: 'idempotency_mismatch' } })
  expect((await upload(api, { key, file, query: 'name=others' })).body.id).not.toBe(one.body.id)
  const { count } = await api.db
    .selectFrom('dataset_row')
    .select((select) => select.fn.countAll().as('count'))
    .executeTakeFirstOrThrow()
  expect(count).toBe(10_000n)
})

test('everything that is wrong with a file is told at once, with its lines, and nothing of it is stored', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const big = 'x'.repeat(70_000)
  const refused = await upload(api, { key, file: `id,text\n1\n2,${big}\n3,ok\n4,a\0b\n5,"` })
  expect(refused).toMatchObject({
    status: 400,
    body: {
      code: 'invalid_request',
      errors: [
        { path: 'line 2', message: 'has 1 cells, and there are 2 columns' },
        { path: 'line 3', message: expect.stringMatching(/^is a row of 70\d\d\d bytes: at most 65536$/) },
        { path: 'line 5' },
        { path: 'line 6' },
      ],
    },
  })
  const many = await upload(api, { key, file: `a\n${'1,2\n'.repeat(100)}` })
  expect(many.body.errors).toHaveLength(20)
  expect((await api.db.selectFrom('dataset').selectAll().execute()).length).toBe(0)
})

const hostile = [
  { what: 'nothing', file: '', status: 400 },
  { what: 'a header alone', file: 'a,b\n', status: 400 },
  { what: 'Latin-1', file: Buffer.from('a\nok\n\xe9\n', 'latin1'), status: 400, error: { path: 'line 3' } },
  {
    what: 'no UTF-8 far below',
    file: Buffer.concat([Buffer.from('a\nx\u00E9\n'.repeat(200_000)), Buffer.from([0xff, 10])]),
    status: 400,
    error: { path: 'line 400001' },
  },
  { what: 'UTF-16', file: Buffer.from('\uFEFFa\n1\n', 'utf16le'), status: 400 },
  { what: 'a NUL in a name', file: 'a\0\n1\n', status: 400 },
  { what: 'two hundred and one columns', file: `${Array.from({ length: 201 }, (_, i) => i).join(',')}\n`, status: 400 },
  { what: 'a row too many', file: `a\n${'1\n'.repeat(100_001)}`, status: 400, error: { path: 'line 100002' } },
  { what: 'JSON', file: '{"a":1}', type: 'application/json', status: 415 },
  { what: 'a form', file: 'a=1', type: 'application/x-www-form-urlencoded', status: 415 },
  {
    what: 'keys without end',
    file: Array.from({ length: 300 }, (_, i) => `{"k${i}":1}`).join('\n'),
    type: 'application/jsonl',
    status: 400,
  },
  { what: 'no name', file: 'a\n1', query: '', status: 400 },
  { what: 'another format', file: 'a\n1', query: 'name=x&format=xlsx', status: 400 },
]

test('what is no such file is refused with an answer that says why', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  for (const { what, file, status, type = 'text/csv', query = 'name=x', error } of hostile) {
    const refused = await upload(api, { key, file, type, query })
    expect(refused, what).toMatchObject({
      status,
      body: { detail: expect.any(String), ...(error && { errors: [error] }) },
    })
  }
})

test('a file without a media type is refused by naming those that are taken, in the answer and in the document', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const taken = ['text/csv', 'application/x-ndjson', 'application/jsonl']
  for (const type of [undefined, '', 'csv', 'application/json', 'text/plain; charset=utf-8']) {
    const response = await api.app.inject({
      method: 'POST',
      url: '/api/v1/datasets?name=x',
      headers: { authorization: `Bearer ${key}`, ...(type !== undefined && { 'content-type': type }) },
      payload: Buffer.from('a\n1\n'),
    })
    const { remedy, title } = response.json()
    expect([type, response.statusCode, remedy], title).toEqual([
      type,
      415,
      `Send the header Content-Type: one of ${taken.join(', ')}.`,
    ])
  }
  const none = await api.app.inject({
    method: 'POST',
    url: '/api/v1/datasets?name=x',
    headers: { authorization: `Bearer ${key}` },
  })
  expect([none.statusCode, none.json().detail]).toEqual([400, 'The body is missing: send the file.'])
  const document = await api.app.inject({ method: 'GET', url: '/api/openapi.json' })
  const { requestBody } = document.json().paths['/api/v1/datasets'].post
  expect(requestBody).toMatchObject({ required: true })
  expect(Object.keys(requestBody.content)).toEqual(taken)
  expect(requestBody.content['text/csv'].schema).toMatchObject({ type: 'string', format: 'binary' })
})

test('a file may be large, and not too large; formulas and markup in it are text like any other', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const cell = `=HYPERLINK("http://x","y")<script>${'z'.repeat(4_000)}`
  const line = `"${cell.replaceAll('"', '""')}"\n`
  const rows = Math.floor((MAX_DATASET_BYTES - 100) / line.length)
  const made = await upload(api, { key, file: `f\n${line.repeat(rows)}` })
  expect(made).toMatchObject({ status: 201, body: { rows } })
  const last = await api.ask('GET', `/api/v1/datasets/${made.body.id}/rows?order=desc&limit=1`, { key })
  expect(last.body['rows']).toEqual([{ number: rows, values: { f: cell } }])
  const refused = await upload(api, { key, file: 'x'.repeat(MAX_DATASET_BYTES + 1) })
  expect(refused).toMatchObject({ status: 413, body: { code: 'payload_too_large' } })
})

test('an upload that broke off is not to be seen, and goes on when the file is sent again', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const { body } = await upload(api, { key, file: 'a\n1\n2\n3\n' })
  const owner = connectDatabase({ url: api.database.ownerUrl, maxConnections: 1 })
  await sql`update dataset set stored_at = null`.execute(owner)
  await sql`delete from dataset_row where number > 1`.execute(owner)
  await owner.destroy()
  expect((await api.ask('GET', `/api/v1/datasets/${body.id}`, { key })).status).toBe(404)
  expect((await api.ask('GET', '/api/v1/datasets', { key })).body).toEqual({ datasets: [], nextCursor: null })
  expect((await upload(api, { key, file: 'a\n1\n2\n3\n' })).body).toEqual(body)
  expect((await api.ask('GET', `/api/v1/datasets/${body.id}/rows`, { key })).body['rows']).toHaveLength(3)
})

test('a key of the whole organisation lists a project that it names', async () => {
  const api = await useApi()
  const { key, projectId } = await makeTenant(api)
  await upload(api, { key, file: 'a\n1\n' })
  await startTestRun(api, await makeTenant(api))
  const listed = await api.ask('GET', `/api/v1/datasets?projectId=${projectId}`, { key: api.operatorKey })
  expect(listed.body['datasets']).toHaveLength(1)
  expect((await api.ask('GET', '/api/v1/datasets', { key: api.operatorKey })).status).toBe(400)
})
