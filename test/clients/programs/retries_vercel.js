// The Vercel AI SDK: repeats by itself what is busy. It has no time-out of its own.
import { createOpenAI } from '@ai-sdk/openai'
import { generateText } from 'ai'
import assert from 'node:assert/strict'

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env
const model = createOpenAI({ baseURL, apiKey }).chat('steady')
const { text } = await generateText({ model, prompt: 'When was the mill built?', maxOutputTokens: 50, maxRetries: 5 })
assert.ok(text)
console.log('ok')
