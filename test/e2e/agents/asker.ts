import { defineAgent } from '#workflows/kit.ts'

/** Asks its owner before it goes on. */
export const asker = defineAgent({
  name: 'asker',
  description: 'Asks whether to go on, and then makes a call.',
  input: {
    type: 'object',
    properties: { waitSeconds: { type: 'integer', minimum: 1 }, otherwise: { type: 'string' } },
    additionalProperties: false,
  },
  async run(kit, wait) {
    kit.checkpoint({ asked: true })
    const answer = await kit.ask('permission', { question: 'Shall I go on?', choices: ['yes', 'no'], ...wait })
    if (answer !== 'yes') return { answer }
    const { ref } = await kit.chat('go', {
      messages: [{ role: 'user', parts: ['What comes after permission?'] }],
      maxTokens: 40,
    })
    return { answer, ref }
  },
  async wrapUp(kit) {
    return { answer: await kit.ask('last', { question: 'Was it good?' }) }
  },
})
