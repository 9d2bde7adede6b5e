import { defineAgent } from '#workflows/kit.ts'

/** Asks its questions one after another, each with the same worst case. */
export const steps = defineAgent({
  name: 'steps',
  description: 'Asks as many questions as it is told to, one after another.',
  input: {
    type: 'object',
    properties: {
      count: { type: 'integer', minimum: 1, maximum: 5_000 },
      longAfter: { type: 'integer', minimum: 1 },
    },
    required: ['count'],
    additionalProperties: false,
  },
  async run(kit, { count, ...history }) {
    for (let done = doneOf(kit.resumed); done < count; done += 1) {
      await kit.chat(`step/${done}`, {
        messages: [{ role: 'user', parts: [`What is step ${done.toString().padStart(4, '0')}?`] }],
        maxTokens: 40,
      })
      kit.checkpoint({ done: done + 1 })
      await kit.rollover({ done: done + 1 }, history)
    }
    return { done: count }
  },
  async wrapUp(kit, _input, draft) {
    const { ref } = await kit.chat('summary', {
      messages: [{ role: 'user', parts: [`What was done? ${JSON.stringify(draft)}`] }],
      maxTokens: 40,
    })
    return { done: doneOf(draft), summary: ref }
  },
})

function doneOf(state: unknown): number {
  if (typeof state !== 'object' || state === null || !('done' in state)) return 0
  return typeof state.done === 'number' ? state.done : 0
}
