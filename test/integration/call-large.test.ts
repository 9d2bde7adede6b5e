import { executeCall } from '#calls/execute.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { createWorld, requestsSeen } from '../support/world.ts'

test('a request is stored in the commit of its hold, and a large one before it, so that many large ones fit', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const engine = await world.startEngine()
  const image = { type: 'image' as const, url: `data:image/png;base64,${'A'.repeat(200_000)}` }
  const content = [{ type: 'text' as const, text: QUESTION }, image]
  const body = { messages: [{ role: 'user' as const, content }], maxTokens: 20 }
  await executeCall(engine, run.request('small', QUESTION))
  await executeCall(engine, run.request('large', '', { body }))
  const { rows } = await sql`
    select c.path, p.xmin::text = h.xid::text as together from call c join payload p on p.id = c.request_id
      join transfer h on h.call_id = c.id and h.code = 'hold'
    order by c.path`.execute(world.db)
  expect(rows).toEqual([
    { path: 'large', together: false },
    { path: 'small', together: true },
  ])
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  await expectVerified(world)
})
