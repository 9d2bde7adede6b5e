import { defineAgent } from '#workflows/kit.ts'

/** Waits for its owner: an open run that does nothing. */
export const waiter = defineAgent({
  name: 'waiter',
  description: 'Asks whether to go on, and waits.',
  input: { type: 'object', properties: {}, additionalProperties: false },
  run: async (kit) => ({ answer: await kit.ask('permission', { question: 'Shall I go on?' }) }),
})
