import { anthropicModelPageSchema, anthropicModelSchema } from '#contracts/anthropic-answers.ts'
import { openAiModelPageSchema, openAiModelSchema } from '#contracts/openai-answers.ts'
import { z } from 'zod'
import { callerOfRequest } from './access.ts'
import { toModelInfo, toModelPage } from './anthropic/model-info.ts'
import { documentedAs, REFUSED } from './documented.ts'
import { mayUse, modelFor } from './gateway-deps.ts'
import type { GatewayRoute } from './gateway-route.ts'
import { toModel } from './openai/model.ts'
import { speaksAnthropic } from './surface.ts'

const IN_WORDS = 'In the words of Anthropic for a request with its header `anthropic-version`.'

/** What the key may ask for. */
export const modelsRoute: GatewayRoute = {
  method: 'GET',
  url: '/models',
  documented: documentedAs({
    surface: 'both',
    summary: 'The models that this key may ask for',
    description: IN_WORDS,
    answer: z.union([openAiModelPageSchema, anthropicModelPageSchema]),
    refused: REFUSED.look,
  }),
  handlerOf: (deps) => async (request) => {
    const caller = callerOfRequest(request)
    const { catalog } = await deps.engine.shelf.newest()
    const models = catalog.models.filter(({ name }) => mayUse(caller, name))
    return speaksAnthropic(request) ? toModelPage(models) : { object: 'list', data: models.map(toModel) }
  },
}

const modelParams = z.object({ model: z.string() })

export const modelRoute: GatewayRoute = {
  method: 'GET',
  url: '/models/:model',
  documented: documentedAs({
    surface: 'both',
    summary: 'A model',
    description: IN_WORDS,
    params: modelParams,
    answer: z.union([openAiModelSchema, anthropicModelSchema]),
    refused: REFUSED.lookUp,
  }),
  handlerOf: (deps) => async (request) => {
    const model = await modelFor(deps, callerOfRequest(request), modelParams.parse(request.params).model)
    return speaksAnthropic(request) ? toModelInfo(model) : toModel(model)
  },
}
