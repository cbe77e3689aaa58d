def infer(hf):
    raise NotImplementedError
