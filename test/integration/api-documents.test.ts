import { MAX_UPLOAD_BYTES } from '#contracts/corpus.ts'
import { expect, test } from 'vitest'
import { makeTenant, text, useApi } from '#test/support/api.ts'

test('documents are cut into passages, which are found again by their id', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const corpus = await api.make('/api/v1/corpora', { key, body: { name: 'papers' } })
  const path = `/api/v1/corpora/${text(corpus, 'id')}`
  expect((await api.ask('GET', path, { key })).body).toEqual(corpus)
  const documents = [{ source: 'tide.md', text: '# Tide\n\nThe tide comes in at noon.' }]
  expect(await api.make(`${path}/documents`, { key, body: { documents } })).toEqual({ passagesAdded: 1 })
  expect(await api.make(`${path}/documents`, { key, body: { documents } })).toEqual({ passagesAdded: 0 })
  const { id } = await api.db.selectFrom('passage').select('id').executeTakeFirstOrThrow()
  const passage = await api.ask('GET', `${path}/passages/${id}`, { key })
  expect(passage.body).toMatchObject({ id, source: 'tide.md', text: expect.stringContaining('noon') })
})

test('an upload may be larger than other requests, but not than its own limit', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const corpus = await api.make('/api/v1/corpora', { key, body: { name: 'papers' } })
  const path = `/api/v1/corpora/${text(corpus, 'id')}/documents`
  const words = Array.from({ length: 12_000 }, (_, index) => `word${index} stands here\n\n`).join('')
  const documents = Array.from({ length: 14 }, (_, index) => ({ source: `long-${index}.md`, text: words }))
  const request = { key, body: { documents }, headers: { 'idempotency-key': 'all' } }
  const { status, body } = await api.ask('POST', path, request)
  expect(status).toBe(201)
  const again = await api.ask('POST', path, request)
  expect([again.body, again.headers['idempotency-replayed']]).toEqual([body, 'true'])
  const tooLong = [{ source: 'x.md', text: 'x'.repeat(MAX_UPLOAD_BYTES) }]
  const refused = await api.ask('POST', path, { key, body: { documents: tooLong } })
  expect([refused.status, refused.body['code']]).toEqual([413, 'payload_too_large'])
})
