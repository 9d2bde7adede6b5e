import { reportSchema } from '#contracts/report.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { usd } from '../support/api.ts'
import { useGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'

const opened = z.object({ run: z.looseObject({ id: z.string() }), key: z.looseObject({ secret: z.string() }) })

test("an external run's report tells which of its calls likely ask the same again, and what they cost", async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const envelope = { pockets: [{ balanceClass: 'direct', amount: usd('1') }] }
  const { run, key } = opened.parse(await api.make('/api/v1/runs/external', { key: tenant.key, body: { envelope } }))
  const client = gateway.client(key.secret)
  const messages = [{ role: 'user' as const, content: 'When was the mill built?' }]
  const ask = async (tokens: number, idempotencyKey?: string) => {
    const headers = idempotencyKey === undefined ? {} : { 'Idempotency-Key': idempotencyKey }
    const asked = { model: 'steady', messages, max_tokens: tokens }
    return (await client.chat.completions.create(asked, { headers })).id.replace('chatcmpl-', '')
  }
  const first = await ask(50)
  await ask(60)
  const second = await ask(50)
  await ask(50, 'mine')
  const { body } = await api.ask('GET', `/api/v1/runs/${run.id}/report`, { key: tenant.key })
  const { calls, likelyRepeats } = reportSchema.parse(body)
  const charged = calls.find(({ id }) => id === second)?.attempts[0]?.charged
  expect(likelyRepeats).toEqual([{ first, repeats: [second], charged: [{ balanceClass: 'direct', charged }] }])
  await expectVerified(api)
})
