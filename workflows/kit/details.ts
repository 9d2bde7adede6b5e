import type { ChatRequest } from '#contracts/activities.ts'
import { SEARCH_ATTRIBUTES } from '#contracts/search-attributes.ts'
import { setCurrentDetails, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow'
import type { Answered } from './chat.ts'

const keyword = (name: string) => ({ name, type: 'KEYWORD' }) as const

const PROJECT = keyword(SEARCH_ATTRIBUTES.project)
const AGENT = keyword(SEARCH_ATTRIBUTES.agent)
const MODEL = keyword(SEARCH_ATTRIBUTES.model)
const STATE = keyword(SEARCH_ATTRIBUTES.state)

/** What people see of the run in Temporal's own page, beside its events: no part of its history. */
export function showCall({ path, model }: ChatRequest, { callId, route, held }: Answered): void {
  const served = route === undefined ? '' : `, served by **${route}**`
  const money = held === undefined ? '' : `, ${held} held`
  setCurrentDetails(`Last call: \`${path}\` · ${model}${served}${money} · call ${callId}`)
}

/**
 * Lets the run be found by its state. Only where it was started with one: a namespace that does not know the attribute
 * would fail the workflow task for ever.
 */
export function showState(state: string): void {
  const known = workflowInfo().typedSearchAttributes.get(STATE)
  if (known !== undefined && known !== state) upsertSearchAttributes([{ key: STATE, value: state }])
}

/** What a child of this run can be found by, where this run can. */
export function attributesOfChild({ agent, model }: { readonly agent: string; readonly model: string | undefined }) {
  const own = workflowInfo().typedSearchAttributes
  const project = own.get(PROJECT)
  if (project === undefined) return []
  return [
    { key: PROJECT, value: project },
    { key: AGENT, value: agent },
    { key: MODEL, value: model ?? own.get(MODEL) ?? '' },
    { key: STATE, value: 'queued' },
  ]
}
