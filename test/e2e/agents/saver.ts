import { defineAgent } from '#workflows/kit.ts'

/** Spends what it may, and delivers what it may deliver with, before and after a call. */
export const saver = defineAgent({
  name: 'saver',
  description: 'Asks until it is stopped, and then tells its budget.',
  input: { type: 'object', properties: {}, additionalProperties: false },
  async run(kit) {
    for (let step = 0; step < 100; step += 1) {
      await kit.chat(`step/${step}`, { messages: [{ role: 'user', parts: [`What is ${step}?`] }], maxTokens: 40 })
    }
    return {}
  },
  async wrapUp(kit) {
    const before = await kit.budget()
    await kit.chat('summary', { messages: [{ role: 'user', parts: ['What was done?'] }], maxTokens: 40 })
    return { before, after: await kit.budget() }
  },
})
