"""Knowledge distillation: the losses and the one training loop that all learning in DiReDi uses."""
