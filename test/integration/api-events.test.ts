import type { Scope } from '#db/database.ts'
import { addEvent } from '#db/event.ts'
import { finishRun } from '#db/run-end.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeTenant, startTestRun, useApi, type TestApi } from '#test/support/api.ts'
import { pollUntil } from '#test/support/poll.ts'

const WRITERS = 8
const EVENTS_PER_WRITER = 40

const eventSchema = z.object({ id: z.string(), kind: z.string(), data: z.record(z.string(), z.unknown()) })
type Event = z.infer<typeof eventSchema>

interface Reading {
  readonly url: string
  readonly key: string
  readonly after?: string | undefined
}

/** Events of a stream until it ends; a reader that stops reading cuts the connection. */
async function* readEvents({ url, key, after }: Reading): AsyncGenerator<Event> {
  const gone = new AbortController()
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${key}`, ...(after !== undefined && { 'last-event-id': after }) },
      signal: gone.signal,
    })
    expect(response.headers.get('content-type')).toBe('text/event-stream')
    let rest = ''
    for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      const frames = (rest + chunk).split('\n\n')
      rest = frames.pop() ?? ''
      for (const frame of frames) {
        const data = /^data: (.*)$/m.exec(frame)?.[1]
        if (data !== undefined) yield eventSchema.parse(JSON.parse(data))
      }
    }
  } finally {
    gone.abort()
  }
}

async function collect(reading: Reading): Promise<readonly Event[]> {
  const events: Event[] = []
  for await (const event of readEvents(reading)) events.push(event)
  return events
}

async function finish(api: TestApi, scope: Scope, runId: string): Promise<void> {
  await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).where('id', '=', runId).execute()
  const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
  await finishRun(api.db, scope, { runId, end, output: null })
}

async function useStream(nowMs = () => Date.now()) {
  const api = await useApi({ nowMs })
  const tenant = await makeTenant(api)
  const runId = await startTestRun(api, tenant)
  const url = `${await api.app.listen({ host: '127.0.0.1', port: 0 })}/api/v1/runs/${runId}/events`
  return { api, tenant, runId, url, scope: { projectId: tenant.projectId } }
}

test('a reader that reconnects again and again loses nothing and sees nothing twice, while eight write at once', async () => {
  const { api, tenant, runId, url, scope } = await useStream()

  async function write(writer: number): Promise<void> {
    for (let count = 0; count < EVENTS_PER_WRITER; count += 1) {
      await api.db.transaction().execute(async (trx) => {
        // Whoever has the smaller xid often commits later, and with the larger seq.
        await sql`select pg_current_xact_id(), pg_sleep(${Math.random() * 0.01})`.execute(trx)
        await addEvent(trx, scope, { runId, kind: 'test', data: { writer, count } })
        await sql`select pg_sleep(${Math.random() * 0.01})`.execute(trx)
      })
    }
  }

  async function readAll(): Promise<readonly Event[]> {
    const seen: Event[] = []
    for (;;) {
      const take = 1 + Math.floor(Math.random() * 30)
      let taken = 0
      for await (const event of readEvents({ url, key: tenant.key, after: seen.at(-1)?.id })) {
        seen.push(event)
        if (event.kind === 'run.completed') return seen
        taken += 1
        if (taken === take) break
      }
    }
  }

  const reading = readAll()
  await Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(writer)))
  await finish(api, scope, runId)
  const seen = await reading
  expect(new Set(seen.map((event) => event.id)).size).toBe(seen.length)
  const written = seen
    .filter((event) => event.kind === 'test')
    .map(({ data }) => `${String(data['writer'])}:${String(data['count'])}`)
  expect(written).toHaveLength(WRITERS * EVENTS_PER_WRITER)
  expect(new Set(written).size).toBe(WRITERS * EVENTS_PER_WRITER)
  for (let writer = 0; writer < WRITERS; writer += 1) {
    const own = written.filter((each) => each.startsWith(`${writer}:`))
    expect(own).toEqual(Array.from({ length: EVENTS_PER_WRITER }, (_, count) => `${writer}:${count}`))
  }
})

test('a stream ends with the run, and one that is opened afterwards ends too, from any place', async () => {
  const { api, tenant, runId, url, scope } = await useStream()
  const open = collect({ url, key: tenant.key })
  await finish(api, scope, runId)
  const events = await open
  expect(events.map((event) => event.kind)).toEqual(['run.queued', 'run.completed'])
  for (const [index, event] of events.entries()) {
    expect(await collect({ url, key: tenant.key, after: event.id })).toEqual(events.slice(index + 1))
  }
})

test('money in events is a decimal string, and a page of JSON says the same as the stream', async () => {
  const { api, tenant, runId, url, scope } = await useStream()
  const data = { heldNano: '2350000', currency: 'USD', callId: 'c' }
  await api.db.transaction().execute((trx) => addEvent(trx, scope, { runId, kind: 'attempt.settled', data }))
  await finish(api, scope, runId)
  const events = await collect({ url, key: api.operatorKey })
  expect(events[1]?.data).toEqual({ held: { amount: '0.002350', currency: 'USD' }, currency: 'USD', callId: 'c' })
  const path = `/api/v1/runs/${runId}/events?format=json`
  expect((await api.ask('GET', path, { key: tenant.key })).body).toMatchObject({ events })
  const next = await api.ask('GET', `${path}&after=${events[1]?.id}`, { key: tenant.key })
  expect(next.body).toMatchObject({ events: [{ kind: 'run.completed' }] })
})

test('a place that is none is refused', async () => {
  const { api, tenant, runId } = await useStream()
  const path = `/api/v1/runs/${runId}/events`
  for (const id of ['x', '1', '-1-2', '99999999999999999999-1', '1-9223372036854775808']) {
    const header = await api.ask('GET', path, { key: tenant.key, headers: { 'last-event-id': id } })
    expect([id, header.status, header.body['code']]).toEqual([id, 400, 'invalid_request'])
    expect((await api.ask('GET', `${path}?after=${id}`, { key: tenant.key })).status).toBe(400)
  }
})

test('a stream shows that it is alive, and ends within a second once its key is revoked', async () => {
  const begunMs = Date.now()
  let aheadMs = 0
  const { api, tenant, url } = await useStream(() => begunMs + aheadMs)
  const response = await fetch(url, { headers: { authorization: `Bearer ${tenant.key}` } })
  let read = ''
  const reading = (async () => {
    for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) read += chunk
  })()
  await pollUntil(() => read.includes('run.queued'), { what: 'the first event' })
  aheadMs += 15_000
  await pollUntil(() => read.includes(': heartbeat'), { what: 'a heartbeat' })
  await api.ask('DELETE', `/api/v1/keys/${tenant.keyId}`, { key: api.operatorKey })
  aheadMs += 750
  await reading
})

test('streams end when the server closes', async () => {
  const { api, tenant, url } = await useStream()
  const seen: Event[] = []
  const reading = (async () => {
    for await (const event of readEvents({ url, key: tenant.key })) seen.push(event)
  })().catch(() => {})
  await pollUntil(() => seen.length > 0, { what: 'the first event' })
  await api.app.close()
  await reading
})
