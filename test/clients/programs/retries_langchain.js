// LangChain for JavaScript: repeats by itself what is busy, and what it has waited for too long.
import { ChatOpenAI } from '@langchain/openai'
import assert from 'node:assert/strict'

const configuration = { baseURL: process.env.OPENAI_BASE_URL }
const modelOf = (more) => new ChatOpenAI({ maxTokens: 50, maxRetries: 5, configuration, ...more })
assert.ok((await modelOf({ model: 'steady' }).invoke('When was the mill built?')).content)
assert.ok((await modelOf({ model: 'late', timeout: 3_000 }).invoke('When was the mill built?')).content)
console.log('ok')
