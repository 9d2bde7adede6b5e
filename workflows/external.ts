import { EXTERNAL_AGENT } from '#contracts/agents.ts'
import { defineAgent, type FromSchema, type Kit } from './kit.ts'

const inputSchema = {
  type: 'object',
  properties: {
    name: { type: 'string', description: 'What people know it by.' },
    idleSeconds: { type: 'integer', minimum: 1, default: 3600, description: 'It ends when idle for so long.' },
  },
  additionalProperties: false,
} as const

/**
 * A run whose calls are made by a program outside. It does nothing itself: it keeps the envelope while its owner does not
 * end it, until it has been idle for too long, or its time is over.
 */
export const external = defineAgent({
  name: EXTERNAL_AGENT,
  description: 'Keeps an envelope for a program outside, which makes its calls through the gateway.',
  input: inputSchema,
  run: keepOpen,
})

async function keepOpen(kit: Kit, { idleSeconds = 3600 }: FromSchema<typeof inputSchema>): Promise<never> {
  for (;;) {
    await kit.idle(idleSeconds * 1_000)
    await kit.rollover(null)
  }
}
